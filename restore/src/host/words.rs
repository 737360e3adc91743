//! Lists of names in a sentence.

/// How many are named.
const NAMED: usize = 5;

/// The first names, and how many more there are.
pub fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(some_of(&["a", "b"]), "a, b");
        let many: Vec<String> = (1..=7).map(|n| format!("db{n}")).collect();
        assert_eq!(some_of(&many), "db1, db2, db3, db4, db5 and 2 more");
    }
}
