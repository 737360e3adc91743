#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::keyring::{KeyClass, Keyring, Recipients, Unlock};
use crate::names::ClusterId;

const PATH: &str = "wal/00000001/00000000/000000010000000000000001";

fn keyring() -> Keyring {
    let (unlock, _) = Unlock::generate(Timestamp::UNIX_EPOCH);
    let recipients = unlock.recipients().unwrap();
    Keyring::generate(ClusterId::from_bytes([7; 16]), &recipients, Timestamp::UNIX_EPOCH).unwrap()
}

fn name(kind: ObjectKind, path: &str) -> ObjectName<'_> {
    ObjectName { kind, lineage: LineageId::from_bytes([1; 16]), path }
}

/// Pages that compress as tables do: part text, part counters, part noise.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend_from_slice(b"a row of a table with a number in it: ");
        bytes.extend_from_slice(&(bytes.len() as u64 / 256).to_le_bytes());
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sealed_frames(keys: &Keyring, path: &str, kind: ObjectKind, frames: &[&[u8]]) -> (Vec<u8>, Vec<FrameAt>) {
    let mut writer = FrameWriter::begin(keys, &name(kind, path), Codec::Lz4, Vec::new()).unwrap();
    let places = frames.iter().map(|raw| writer.append(raw).unwrap()).collect();
    (writer.finish().unwrap().bytes, places)
}

#[test]
fn every_codec_and_length_comes_back() {
    let keys = keyring();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        for len in [0, 1, 100, 65_534, 65_535, 65_536, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 << 20]
        {
            let plain = content(len);
            let extra =
                HeaderExtra { valid_len: Some(len as u64 / 2), attachment: Some(b"index"), digest: None };
            let object = name(ObjectKind::Segment, PATH);
            let whole = seal(&keys, &object, codec, &plain, extra).unwrap();
            // As two threads share the frames between them.
            let mut shares = [(); 2].map(|()| LaidFrames::with_room(codec, plain.len(), FRAME_BYTES));
            for (number, raw) in plain.chunks(FRAME_BYTES).enumerate() {
                shares[number % 2].lay(number, raw, PATH).unwrap();
            }
            let pieces = seal_laid(&keys, &object, codec, shares.into(), keys.digest(&plain), extra).unwrap();
            assert_eq!(pieces.concat().len(), whole.len());
            for sealed in [whole, pieces.concat()] {
                let opened = open(&keys, &object, &sealed).unwrap();
                assert!(opened.plain == plain, "{codec} {len}");
                assert_eq!(opened.header.digest, Some(keys.digest(&plain)));
                assert_eq!(opened.header.valid_len, Some(len as u64 / 2));
                let attachment = open_attachment(&keys, &object, &sealed).unwrap();
                assert_eq!(attachment, b"index");
                assert_eq!(attachment_range(&opened.header).start, HEADER_LEN as u64);
                let scrubbed = scrub(PATH, &sealed).unwrap();
                assert_eq!(scrubbed.frames as usize, len.div_ceil(FRAME_BYTES));
                if codec != Codec::None && len > 65_536 {
                    assert!(sealed.len() < len * 2 / 3, "{codec} {len} {}", sealed.len());
                }
            }
        }
    }
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    let keys = keyring();
    let mut noise = vec![0; 100_000];
    getrandom::fill(&mut noise).unwrap();
    for codec in [Codec::Lz4, Codec::Zstd] {
        let (sealed, places) = {
            let mut writer =
                FrameWriter::begin(&keys, &name(ObjectKind::Pack, "packs/x/000000"), codec, Vec::new())
                    .unwrap();
            let place = writer.append(&noise).unwrap();
            (writer.finish().unwrap(), place)
        };
        assert_eq!(places.stored_len as usize, noise.len() + FRAME_OVERHEAD);
        assert_eq!(sealed.digest, None);
        let opened = open(&keys, &name(ObjectKind::Pack, "packs/x/000000"), &sealed.bytes).unwrap();
        assert!(opened.plain == noise);
    }
}

#[test]
fn a_frame_opens_alone_with_nothing_but_the_header() {
    let keys = keyring();
    let raw: Vec<Vec<u8>> = (0..5).map(|n| content(1000 * (n + 1))).collect();
    let refs: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
    let (sealed, places) = sealed_frames(&keys, "packs/x/000000", ObjectKind::Pack, &refs);
    let reader =
        FrameReader::new(&keys, &name(ObjectKind::Pack, "packs/x/000000"), &sealed[..HEADER_LEN]).unwrap();
    let mut out = Vec::new();
    for place in places.iter().rev() {
        let begin = place.offset as usize;
        let mut stored = sealed[begin..begin + place.stored_len as usize].to_vec();
        reader.open_frame(place.frame, &mut stored, &mut out).unwrap();
        assert_eq!(out, raw[place.frame as usize]);
    }
    let footer = Footer::parse("x", &sealed).unwrap();
    let index = reader.open_last(&footer, &mut sealed[footer.last_frame_at as usize..].to_vec()).unwrap();
    assert_eq!(index.frames.len(), 5);
    assert_eq!(index.frames[3].offset, places[3].offset);
    assert_eq!(index.frames[3].stored_len, u64::from(places[3].stored_len));
}

#[test]
fn a_buffer_that_was_used_before_gives_the_same_object() {
    let keys = keyring();
    let used = vec![0xAA; 5 << 20];
    let mut writer = FrameWriter::begin(&keys, &name(ObjectKind::FileList, "f"), Codec::Zstd, used).unwrap();
    writer.append(&content(300_000)).unwrap();
    let sealed = writer.finish().unwrap();
    assert!(sealed.bytes.len() < 300_000);
    let opened = open(&keys, &name(ObjectKind::FileList, "f"), &sealed.bytes).unwrap();
    assert_eq!(sealed.digest, Some(keys.digest(&opened.plain)));
    assert_eq!(opened.header.digest, None);
}

/// I6: the salt is drawn inside, so the same content sealed twice shares no byte of ciphertext.
#[test]
fn sealing_twice_gives_different_objects() {
    let keys = keyring();
    let once = || {
        seal(&keys, &name(ObjectKind::Claim, "c"), Codec::None, b"the same", HeaderExtra::default()).unwrap()
    };
    let (first, second) = (once(), once());
    assert_ne!(first[32..64], second[32..64]);
    assert_ne!(first[HEADER_LEN + 8..HEADER_LEN + 20], second[HEADER_LEN + 8..HEADER_LEN + 20]);
}

/// I6: an object that lost frames does not open, even with a footer that fits.
#[test]
fn cutting_fails() {
    let keys = keyring();
    let (sealed, places) = sealed_frames(&keys, PATH, ObjectKind::Segment, &[b"one", b"two", b"three"]);
    let object = name(ObjectKind::Segment, PATH);
    for len in 0..sealed.len() {
        assert!(open(&keys, &object, &sealed[..len]).is_err(), "{len}");
    }
    // The last data frame taken out, the footer made to fit.
    let footer = Footer::parse(PATH, &sealed).unwrap();
    let third = places[2].offset as usize;
    let mut cut = sealed[..third].to_vec();
    cut.extend_from_slice(&sealed[footer.last_frame_at as usize..sealed.len() - FOOTER_LEN]);
    cut.extend_from_slice(&reader::encode_footer(third as u64, 2));
    let error = open(&keys, &object, &cut).unwrap_err();
    let tag = SealError::Frame { object: PATH.into(), frame: FrameRef::Last, check: FrameCheck::Tag };
    assert_eq!(error, tag);
    // The second data frame put forward as the last one.
    let mut early = sealed[..third].to_vec();
    early.extend_from_slice(&reader::encode_footer(places[1].offset, 1));
    assert_eq!(open(&keys, &object, &early).unwrap_err(), tag);
}

/// I6: frames in another order do not open.
#[test]
fn reordering_fails() {
    let keys = keyring();
    let (mut sealed, places) = sealed_frames(&keys, PATH, ObjectKind::Segment, &[b"one", b"two"]);
    let (a, b) = (places[0].offset as usize, places[1].offset as usize);
    let len = places[0].stored_len as usize;
    assert_eq!(len, places[1].stored_len as usize);
    let (first, second) = (sealed[a..a + len].to_vec(), sealed[b..b + len].to_vec());
    sealed[a..a + len].copy_from_slice(&second);
    sealed[b..b + len].copy_from_slice(&first);
    let error = open(&keys, &name(ObjectKind::Segment, PATH), &sealed).unwrap_err();
    let expected = SealError::Frame { object: PATH.into(), frame: FrameRef::Data(0), check: FrameCheck::Tag };
    assert_eq!(error, expected);
}

/// I6: a frame of another object, same place, same cluster, does not open in this one.
#[test]
fn swapping_frames_between_objects_fails() {
    let keys = keyring();
    let (mut sealed, places) = sealed_frames(&keys, PATH, ObjectKind::Segment, &[b"mine"]);
    let (other, _) = sealed_frames(&keys, PATH, ObjectKind::Segment, &[b"your"]);
    let (begin, len) = (places[0].offset as usize, places[0].stored_len as usize);
    sealed[begin..begin + len].copy_from_slice(&other[begin..begin + len]);
    assert!(matches!(
        open(&keys, &name(ObjectKind::Segment, PATH), &sealed).unwrap_err(),
        SealError::Frame { frame: FrameRef::Data(0), check: FrameCheck::Tag, .. }
    ));
    // A whole object under another's header does not open either.
    let mut headed = other.clone();
    headed[..HEADER_LEN].copy_from_slice(&sealed[..HEADER_LEN]);
    assert!(open(&keys, &name(ObjectKind::Segment, PATH), &headed).is_err());
}

/// I6: a whole object under another name does not open, nor does its attachment.
#[test]
fn replaying_under_another_path_fails() {
    let keys = keyring();
    let extra = HeaderExtra { attachment: Some(b"index"), ..HeaderExtra::default() };
    let sealed = seal(&keys, &name(ObjectKind::Segment, PATH), Codec::Lz4, b"content", extra).unwrap();
    let other = name(ObjectKind::Segment, "wal/00000001/00000000/000000010000000000000002");
    assert!(matches!(
        open(&keys, &other, &sealed).unwrap_err(),
        SealError::Frame { check: FrameCheck::Tag, .. }
    ));
    assert!(matches!(
        open_attachment(&keys, &other, &sealed).unwrap_err(),
        SealError::Frame { frame: FrameRef::Attachment, check: FrameCheck::Tag, .. }
    ));
}

/// I6: an object of one kind is not taken for another.
#[test]
fn replaying_as_another_kind_fails() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Intent, "x"), Codec::None, b"content", HeaderExtra::default()).unwrap();
    let error = open(&keys, &name(ObjectKind::Manifest, "x"), &sealed).unwrap_err();
    let (expected, found) = (ObjectKind::Manifest, ObjectKind::Intent);
    assert_eq!(error, SealError::WrongKind { object: "x".into(), expected, found });
}

/// I6: an object of another lineage of the same cluster does not open in this one.
#[test]
fn replaying_in_another_lineage_fails() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, b"content", HeaderExtra::default())
            .unwrap();
    let other = ObjectName { lineage: LineageId::from_bytes([2; 16]), ..name(ObjectKind::Segment, PATH) };
    assert!(matches!(
        open(&keys, &other, &sealed).unwrap_err(),
        SealError::Frame { check: FrameCheck::Tag, .. }
    ));
}

/// I6: the header is not believed before its MAC, and another cluster's MAC is not ours.
#[test]
fn a_header_needs_its_mac() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, b"content", HeaderExtra::default())
            .unwrap();
    let header = read_header(&keys, PATH, &sealed).unwrap();
    assert_eq!((header.kind, header.plain_len, header.len), (ObjectKind::Segment, Some(7), HEADER_LEN));
    for at in 12..HEADER_LEN {
        let mut changed = sealed.clone();
        changed[at] ^= 0x40;
        assert!(read_header(&keys, PATH, &changed).is_err(), "byte {at}");
    }
    let stranger = keyring();
    assert_eq!(
        read_header(&stranger, PATH, &sealed).unwrap_err(),
        SealError::HeaderMac { object: PATH.into() }
    );
    assert!(open(&stranger, &name(ObjectKind::Segment, PATH), &sealed).is_err());
}

/// A header that is cut says how many bytes it takes.
#[test]
fn a_short_header_says_what_it_needs() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, b"content", HeaderExtra::default())
            .unwrap();
    for have in [0, 5, 8, 11, 100, HEADER_LEN - 1] {
        match read_header(&keys, PATH, &sealed[..have]).unwrap_err() {
            SealError::TooShort { needed, .. } => assert_eq!(needed, HEADER_LEN as u64),
            other => panic!("{other}"),
        }
    }
    let error = read_header(&keys, PATH, b"#!/bin/sh").unwrap_err();
    assert_eq!(error, SealError::NotSealed { object: PATH.into() });
}

/// A later version of the format, a codec or key wrap of the future, is named and not guessed at.
#[test]
fn what_comes_from_the_future_is_named() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, b"content", HeaderExtra::default())
            .unwrap();
    let with = |at: usize, value: u8| {
        let mut changed = sealed[..HEADER_LEN].to_vec();
        changed[at] = value;
        let mac = keys.header_mac(&changed[..HEADER_LEN - 32]);
        changed[HEADER_LEN - 32..].copy_from_slice(mac.as_bytes());
        read_header(&keys, PATH, &changed).unwrap_err().to_string()
    };
    assert!(with(8, 2).contains("unknown version 2"));
    assert!(with(12, 99).contains("unknown kind 99"));
    assert!(with(13, 9).contains("unknown codec 9"));
    assert!(with(14, 7).contains("unknown cipher 7"));
    assert!(with(15, 1).contains("unknown key wrap 1"));
}

/// A header may grow: an extension that its MAC covers is passed over.
#[test]
fn an_extension_is_passed_over() {
    let keys = keyring();
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, b"content", HeaderExtra::default())
            .unwrap();
    let mut longer = sealed[..HEADER_LEN - 32].to_vec();
    let len = (HEADER_LEN + 6) as u16;
    longer[10..12].copy_from_slice(&len.to_le_bytes());
    longer[120..122].copy_from_slice(&6u16.to_le_bytes());
    longer.extend_from_slice(&[1, 0, 2, 0, 0xAB, 0xCD]);
    let mac = keys.header_mac(&longer);
    longer.extend_from_slice(mac.as_bytes());
    assert_eq!(read_header(&keys, PATH, &longer).unwrap().len, HEADER_LEN + 6);
}

/// I7: an object sealed before a rotation opens after it; one sealed after it names the new key.
#[test]
fn rotation_keeps_old_objects_readable() {
    let (unlock, _) = Unlock::generate(Timestamp::UNIX_EPOCH);
    let recipients: Recipients = unlock.recipients().unwrap();
    let old = Keyring::generate(ClusterId::from_bytes([7; 16]), &recipients, Timestamp::UNIX_EPOCH).unwrap();
    let new = old
        .next_generation(&[KeyClass::Content, KeyClass::Metadata], &recipients, Timestamp::UNIX_EPOCH)
        .unwrap();
    let object = name(ObjectKind::Segment, PATH);
    let extra = HeaderExtra { attachment: Some(b"index"), ..HeaderExtra::default() };
    let before = seal(&old, &object, Codec::Lz4, b"content", extra).unwrap();
    let after = seal(&new, &object, Codec::Lz4, b"content", extra).unwrap();
    let (before, after) = (open(&new, &object, &before).unwrap(), open(&new, &object, &after).unwrap());
    assert_eq!(before.header.digest, after.header.digest);
    assert_ne!(before.header.data_key, after.header.data_key);
    assert_eq!(before.plain, after.plain);
    let sealed = seal(&new, &object, Codec::Lz4, b"content", extra).unwrap();
    assert!(matches!(
        open(&old, &object, &sealed).unwrap_err(),
        SealError::UnknownKey { class: "content", .. }
    ));
}

/// Rot is found without a key, frame by frame.
#[test]
fn a_scrub_finds_rot() {
    let keys = keyring();
    let extra = HeaderExtra { attachment: Some(&[5; 100]), ..HeaderExtra::default() };
    let sealed =
        seal(&keys, &name(ObjectKind::Segment, PATH), Codec::None, &content(3 << 20), extra).unwrap();
    assert_eq!(scrub(PATH, &sealed).unwrap().frames, 3);
    for at in (HEADER_LEN..sealed.len()).step_by(9973) {
        let mut rotten = sealed.clone();
        rotten[at] ^= 1;
        assert!(scrub(PATH, &rotten).is_err(), "byte {at}");
    }
    for len in (0..sealed.len()).step_by(99_991) {
        assert!(scrub(PATH, &sealed[..len]).is_err(), "{len}");
    }
}

/// What claims more than the format holds is refused before it is made.
#[test]
fn a_frame_is_bounded() {
    let keys = keyring();
    let mut writer =
        FrameWriter::begin(&keys, &name(ObjectKind::Pack, "p"), Codec::None, Vec::new()).unwrap();
    assert!(matches!(writer.append(&vec![0; MAX_FRAME_BYTES + 1]), Err(SealError::TooLarge { .. })));
    writer.append(&vec![0; MAX_FRAME_BYTES]).unwrap();
    assert_eq!(
        open(&keys, &name(ObjectKind::Pack, "p"), &writer.finish().unwrap().bytes).unwrap().plain.len(),
        MAX_FRAME_BYTES
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// I6: whatever is changed, inserted or removed, the object does not open, and nothing panics.
    #[test]
    fn mutated_bytes_never_open(
        len in 0usize..5000,
        kind in 0u8..4,
        at in any::<prop::sample::Index>(),
        value in 1u8..,
        other in any::<prop::sample::Index>(),
    ) {
        let keys = keyring();
        let object = name(ObjectKind::Segment, PATH);
        let extra = HeaderExtra { attachment: Some(b"an index"), ..HeaderExtra::default() };
        let sealed = seal(&keys, &object, Codec::Lz4, &content(len), extra).unwrap();
        let mut changed = sealed.clone();
        match kind {
            0 => changed[at.index(sealed.len())] ^= value,
            1 => changed.insert(at.index(sealed.len() + 1), value),
            2 => { changed.remove(at.index(sealed.len())); }
            _ => changed.swap(at.index(sealed.len()), other.index(sealed.len())),
        }
        if changed != sealed {
            let attachment = open_attachment(&keys, &object, &changed);
            let end = HEADER_LEN + read_header(&keys, PATH, &sealed).unwrap().attachment_len as usize;
            // The attachment stands for itself: it must fail only if what it covers was changed.
            prop_assert!(attachment.is_err() || changed[..end] == sealed[..end]);
            if changed[end..] != sealed[end..] || changed[..HEADER_LEN] != sealed[..HEADER_LEN] {
                prop_assert!(open(&keys, &object, &changed).is_err());
            }
            // It may pass: a header has no CRC. It must not panic.
            scrub(PATH, &changed).ok();
        }
    }

    /// Bytes from anywhere are refused without a panic.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let keys = keyring();
        let mut dressed = b"HIGHWATR\x01\x00\x9a\x00".to_vec();
        dressed.extend_from_slice(&bytes);
        for bytes in [&bytes, &dressed] {
            prop_assert!(open(&keys, &name(ObjectKind::Segment, PATH), bytes).is_err());
            prop_assert!(open_attachment(&keys, &name(ObjectKind::Segment, PATH), bytes).is_err());
            prop_assert!(scrub(PATH, bytes).is_err());
            prop_assert!(Footer::parse(PATH, bytes).is_err());
        }
    }
}
