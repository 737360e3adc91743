#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn berlin() -> TimeZone {
    // Given as a rule, so that the tests do not lean on the host's database.
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn at(text: &str) -> String {
    parse_time(text, &berlin()).unwrap_or_else(|error| panic!("{error}")).to_string()
}

#[test]
fn every_written_form_names_its_moment() {
    for (text, moment) in [
        ("2026-11-20T04:17:00Z", "2026-11-20T04:17:00.000000Z"),
        ("2026-11-20t04:17:00.5z", "2026-11-20T04:17:00.500000Z"),
        ("2026-11-20 04:17:00.123456 UTC", "2026-11-20T04:17:00.123456Z"),
        ("2026-11-20 04:17:00.123456000+00", "2026-11-20T04:17:00.123456Z"),
        // The pitfall: as a civil time this would silently lose its offset.
        ("2026-11-20T04:17:00+01", "2026-11-20T03:17:00.000000Z"),
        ("2026-11-20 04:17+01:00", "2026-11-20T03:17:00.000000Z"),
        ("2026-11-20 04:17:00 -0530", "2026-11-20T09:47:00.000000Z"),
        ("2026-11-20 04:17:00-00:00:01", "2026-11-20T04:17:01.000000Z"),
        ("  2026-11-20 04:17:00[UTC] ", "2026-11-20T04:17:00.000000Z"),
        ("1999-12-31 23:59:59.999999Z", "1999-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(at(text), moment, "{text}");
    }
}

#[test]
fn a_time_without_a_zone_is_refused_with_the_hosts_zone_filled_in() {
    let error = parse_time("2026-11-20 04:17:00", &berlin()).unwrap_err();
    assert!(matches!(error, TimeError::NoZone { .. }), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("'2026-11-20 04:17:00+01:00'"), "{hint}");
    assert_eq!(at("2026-11-20 04:17:00+01:00"), "2026-11-20T03:17:00.000000Z");

    let utc = parse_time("2026-11-20T04:17:00.25", &TimeZone::UTC).unwrap_err().hint().unwrap();
    assert!(utc.contains("'2026-11-20 04:17:00.25Z'"), "{utc}");

    // 2026-10-25 02:30 happened twice in Berlin, 2026-03-29 02:30 never.
    let twice = parse_time("2026-10-25 02:30:00", &berlin()).unwrap_err().hint().unwrap();
    assert!(twice.contains("+02:00") && twice.contains("+01:00"), "{twice}");
    let never = parse_time("2026-03-29 02:30:00", &berlin()).unwrap_err().hint().unwrap();
    assert!(
        never.contains("'2026-03-29 01:30:00+01:00' is before that, '2026-03-29 03:30:00+02:00'"),
        "{never}"
    );
}

#[test]
fn a_change_of_the_clocks_is_never_guessed_over() {
    let civil = |text: &str| text.parse::<DateTime>().unwrap();
    let fold = in_zone("x", civil("2026-10-25T02:30:00"), &berlin()).unwrap_err();
    let TimeError::Ambiguous { candidates, .. } = fold else { panic!("{fold:?}") };
    assert_eq!(candidates, ["2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00"]);
    let gap = in_zone("x", civil("2026-03-29T02:30:00"), &berlin()).unwrap_err();
    let hint = gap.hint().unwrap();
    let TimeError::Nonexistent { candidates, .. } = gap else { panic!("{gap:?}") };
    assert_eq!(candidates, ["2026-03-29 01:30:00+01:00", "2026-03-29 03:30:00+02:00"]);
    assert!(candidates.iter().all(|candidate| hint.contains(candidate)), "{hint}");
    assert!(in_zone("x", civil("2026-03-29T03:00:00"), &berlin()).is_ok());
}

#[test]
fn a_named_zone_is_looked_up_and_must_agree_with_the_offset() {
    // Hosts without a time zone database know no names; the error must then say so and not guess.
    match TimeZone::get("Europe/Berlin") {
        Ok(_) => {
            assert_eq!(at("2026-11-20 04:17:00[Europe/Berlin]"), "2026-11-20T03:17:00.000000Z");
            assert_eq!(at("2026-11-20 04:17:00+01[Europe/Berlin]"), "2026-11-20T03:17:00.000000Z");
            let conflict = parse_time("2026-11-20 04:17:00+02[Europe/Berlin]", &berlin()).unwrap_err();
            assert!(
                matches!(conflict, TimeError::OffsetConflict { ref actual, .. } if actual == "+01:00"),
                "{conflict:?}"
            );
        }
        Err(_) => {
            let unknown = parse_time("2026-11-20 04:17:00[Europe/Berlin]", &berlin()).unwrap_err();
            assert!(matches!(unknown, TimeError::UnknownZone { .. }), "{unknown:?}");
        }
    }
    let unknown = parse_time("2026-11-20 04:17:00[Nowhere/Atlantis]", &berlin()).unwrap_err();
    assert!(matches!(unknown, TimeError::UnknownZone { .. }), "{unknown:?}");
}

#[test]
fn what_is_not_exactly_a_time_is_refused() {
    for text in [
        "",
        "yesterday",
        "2026-11-20",
        "2026-11-20T",
        "2026-11-20T04",
        "2026-11-20T04:17:00.Z",
        "2026-11-20T04:17:00.1234567Z",
        "2026-11-20T04:17:60Z",
        "2026-11-20T24:00:00Z",
        "2026-02-30T04:17:00Z",
        "2026-13-01T04:17:00Z",
        "2026-11-20  04:17:00Z",
        "26-11-20 04:17:00Z",
        "2026-11-20 04:17:00 CET",
        "2026-11-20 04:17:00+1",
        "2026-11-20 04:17:00+01:60",
        "2026-11-20 04:17:00+16",
        "2026-11-20 04:17:00+01x",
        "2026-11-20 04:17:00Z trailing",
        "2026-11-20 04:17:00[]",
        "2026-11-20 04:17:00[+01:00]",
        "2026-11-20 04:17:00]",
        "2026-11-20 04:17:00é",
        "２026-11-20 04:17:00Z",
    ] {
        let error = parse_time(text, &TimeZone::UTC).unwrap_err();
        assert!(matches!(error, TimeError::Syntax { .. }), "{text}: {error:?}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn postgres_epoch_and_literal() {
    let epoch = PgTime::from_postgres_micros(0);
    assert_eq!(epoch.to_string(), "2000-01-01T00:00:00.000000Z");
    assert_eq!(PgTime::from_unix_seconds(946_684_800), Some(epoch));
    assert_eq!(
        PgTime::from_postgres_micros(1).to_postgres_literal().unwrap(),
        "2000-01-01 00:00:00.000001+00"
    );
    assert_eq!(PgTime::from_unix_seconds(i64::MIN), None);
    assert_eq!(PgTime::from_postgres_micros(i64::MIN).to_postgres_literal(), None);
}

proptest! {
    /// Any count of microseconds that a record may hold survives being written and read.
    #[test]
    fn display_is_read_back(micros in any::<i64>()) {
        let time = PgTime::from_postgres_micros(micros);
        // Years below 0 have no form with four digits; no record of PostgreSQL's holds one.
        prop_assume!(time.to_timestamp().is_none_or(|t| t >= "0000-01-01T00:00:00Z".parse().unwrap()));
        prop_assert_eq!(time.to_string().parse::<PgTime>().unwrap(), time);
        let json = serde_json::to_string(&time).unwrap();
        prop_assert_eq!(serde_json::from_str::<PgTime>(&json).unwrap(), time);
    }

    /// Within the calendar the microsecond is kept, whatever its offset was.
    #[test]
    fn offsets_shift_exactly(micros in 0i64..3_000_000_000_000_000, minutes in -900i32..900) {
        let time = PgTime::from_postgres_micros(micros);
        let offset = Offset::from_seconds(minutes * 60).unwrap();
        let civil = offset.to_datetime(time.to_timestamp().unwrap());
        let text = format!("{}{}", civil.strftime("%Y-%m-%d %H:%M:%S%.6f"), show_offset(offset));
        prop_assert_eq!(parse_time(&text, &TimeZone::UTC).unwrap(), time);
    }

    /// What is shown of a moment, and every moment that a hint names, is read back as that moment, in whatever zone the host is.
    #[test]
    fn what_is_shown_can_be_given_back(seconds in 0i64..3_000_000_000, zone in 0usize..4) {
        let rules = ["CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "UTC0"];
        let zone = TimeZone::posix(rules[zone]).unwrap();
        let time = PgTime::from_postgres_micros(seconds * 1_000_000);
        prop_assert_eq!(parse_time(&time.to_string(), &zone).unwrap(), time);
        prop_assert_eq!(parse_time(&time.to_postgres_literal().unwrap(), &zone).unwrap(), time);
        // The same digits as a clock on the wall: the hint names that moment, whether there are others or not.
        let civil = zone.to_datetime(time.to_timestamp().unwrap());
        let Err(TimeError::NoZone { here, .. }) = parse_time(&civil.to_string(), &zone) else { panic!("{civil}") };
        let named = match here {
            Reading::Once(one) => vec![one],
            Reading::Twice(both) => both.to_vec(),
            Reading::Never(both) => panic!("{civil} did happen: {both:?}"),
        };
        let named: Vec<PgTime> = named.iter().map(|text| parse_time(text, &zone).unwrap()).collect();
        prop_assert!(named.contains(&time) && named.is_sorted(), "{named:?}");
    }

    /// Around the days on which clocks change: two moments, an hour apart, and the one that is asked for lies in between.
    #[test]
    fn a_time_that_never_happened_lies_between_two_that_did(minutes in 0i8..60, year in 2000i16..2090) {
        let sunday = jiff::civil::date(year, 3, 1).nth_weekday_of_month(-1, jiff::civil::Weekday::Sunday).unwrap();
        let civil = sunday.at(2, minutes, 0, 0);
        let Err(TimeError::NoZone { here: Reading::Never(both), .. }) = parse_time(&civil.to_string(), &berlin()) else {
            panic!("{civil}")
        };
        let [before, after] = both.map(|text| parse_time(&text, &berlin()).unwrap().postgres_micros());
        prop_assert_eq!(after - before, 3_600_000_000);
        let change = sunday.at(1, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp();
        let change = PgTime::from_timestamp(change).postgres_micros();
        prop_assert!(before < change && change <= after);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        drop(parse_time(&text, &TimeZone::UTC));
    }
}
