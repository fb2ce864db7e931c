//! Versions as programs print them.

/// The first two numbers of a version: enough to tell whether a program is new enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// Finds the first `MAJOR.MINOR` in a text such as `v20.19.1` or `pip 23.2.1 from …`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.');
            let major = numbers.next()?.parse().ok()?;
            let minor = numbers.next()?.parse().ok()?;
            Some(Self { major, minor })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_found_where_programs_print_them() {
        let version = |major, minor| Some(Version { major, minor });
        assert_eq!(Version::find("v20.19.1\n"), version(20, 19));
        assert_eq!(
            Version::find("pip 23.2.1 from /usr/lib/python3/dist-packages/pip (python 3.11)"),
            version(23, 2)
        );
        assert_eq!(Version::find("postgres (PostgreSQL) 18.6"), version(18, 6));
        assert_eq!(Version::find("24"), None);
        assert_eq!(Version::find("no numbers. here"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::find("9.10").unwrap() < Version::find("10.2").unwrap());
        assert!(Version::find("20.9").unwrap() < Version::find("20.19").unwrap());
    }
}
