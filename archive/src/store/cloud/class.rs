//! In which class of storage, or tier, an object is put: by what it is.
//!
//! Packs are nearly all of what is stored, and are read at a restore alone. WAL is written all the time and leaves again with the backups
//! it belongs to. The rest (manifests, keyrings, records of lineages, leases) is small, and every command reads of it. So each of the
//! three may have a class of its own. One from which an object must first be brought back is refused for all of them: a restore needs all three.

use super::client::Place;
use crate::names::{PACKS, WAL};
use crate::store::{StoreError, StoreSpec};

/// The classes that were asked for; none means the bucket's or account's own.
#[derive(Debug, Default)]
pub(super) struct Classes {
    packs: Option<String>,
    wal: Option<String>,
    metadata: Option<String>,
}

impl Classes {
    /// The classes of a spec, each of which must be `readable` at once.
    ///
    /// # Errors
    /// [`StoreError::InvalidOption`].
    pub(super) fn of(
        spec: &StoreSpec,
        readable: &'static [&'static str],
        place: &Place,
    ) -> Result<Self, StoreError> {
        let checked = |option, class: &Option<String>| match class {
            Some(class) if !readable.contains(&class.as_str()) => Err(place.wrong(
                option,
                format!("{class} is not a class that can be read from at once"),
                format!("use one of {}; a restore cannot wait for an archive tier", readable.join(", ")),
            )),
            class => Ok(class.clone()),
        };
        Ok(Self {
            packs: checked("pack_storage_class", &spec.pack_storage_class)?,
            wal: checked("wal_storage_class", &spec.wal_storage_class)?,
            metadata: checked("metadata_storage_class", &spec.metadata_storage_class)?,
        })
    }

    /// The class of the object at this path, which for packs and WAL is `clusters/<name>/<lineage>/packs/…` or `…/wal/…`.
    pub(super) fn of_object(&self, path: &str) -> Option<&str> {
        let mut parts = path.split('/');
        let kind = parts.nth(3).filter(|_| parts.next().is_some()).unwrap_or_default();
        let class = match kind {
            kind if kind == PACKS.trim_end_matches('/') => &self.packs,
            kind if kind == WAL.trim_end_matches('/') => &self.wal,
            _ => &self.metadata,
        };
        class.as_deref()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use url::Url;

    use super::*;

    fn classes(spec: &StoreSpec) -> Result<Classes, StoreError> {
        let place = Place::of(&Url::parse("s3://bucket/p").unwrap()).unwrap();
        Classes::of(spec, &["WARM", "COOL"], &place)
    }

    #[test]
    fn each_kind_of_object_has_its_own() {
        let spec = StoreSpec {
            pack_storage_class: Some("COOL".into()),
            wal_storage_class: Some("WARM".into()),
            ..StoreSpec::default()
        };
        let classes = classes(&spec).unwrap();
        for (path, class) in [
            ("clusters/main/0a/packs/20261120T000000Z-00000000/000000", Some("COOL")),
            ("clusters/main/0a/wal/00000001/00000000/000000010000000000000001", Some("WARM")),
            ("clusters/main/0a/wal/00000002.history", Some("WARM")),
            ("clusters/main/0a/backups/20261120T000000Z-00000000/manifest", None),
            ("clusters/packs/0a/lineage", None),
            ("clusters/main/keys/packs", None),
            ("clusters/main/0a/wal", None),
            ("highwater.json", None),
        ] {
            assert_eq!(classes.of_object(path), class, "{path}");
        }
        let rest = Classes { metadata: Some("WARM".into()), ..Classes::default() };
        assert_eq!(rest.of_object("highwater.json"), Some("WARM"));
        assert_eq!(rest.of_object("clusters/main/0a/packs/b/000000"), None);
    }

    /// Whatever is asked for by the wrong name or of an archive is refused by the name of its option, with what there is instead.
    #[test]
    fn what_cannot_be_read_at_once_is_refused_for_each_kind() {
        for class in ["FROZEN", "cool", ""] {
            let asked = Some(class.to_owned());
            for (option, spec) in [
                (
                    "pack_storage_class",
                    StoreSpec { pack_storage_class: asked.clone(), ..StoreSpec::default() },
                ),
                ("wal_storage_class", StoreSpec { wal_storage_class: asked.clone(), ..StoreSpec::default() }),
                (
                    "metadata_storage_class",
                    StoreSpec { metadata_storage_class: asked.clone(), ..StoreSpec::default() },
                ),
            ] {
                let error = classes(&spec).unwrap_err();
                assert!(error.to_string().contains(option), "{error}");
                assert!(error.hint().unwrap().contains("WARM, COOL"), "{error}");
            }
        }
    }
}
