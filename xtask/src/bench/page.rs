//! The page of benchmarks: sections that each benchmark replaces by itself, between markers.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const TITLE: &str = "# Benchmarks\n";

/// Puts the section that a benchmark has written into the page, which is made if there is none.
pub(super) fn put(page: &Path, name: &str, written: &Path) -> Result<()> {
    let section =
        fs::read_to_string(written).with_context(|| format!("cannot read {}", written.display()))?;
    let before = match fs::read_to_string(page) {
        Err(error) if error.kind() == ErrorKind::NotFound => TITLE.into(),
        read => read.with_context(|| format!("cannot read {}", page.display()))?,
    };
    let after = spliced(&before, name, &section).with_context(|| page.display().to_string())?;
    fs::write(page, after).with_context(|| format!("cannot write {}", page.display()))
}

/// Returns the page with the section in place of the one of this name, or at its end if it has none.
fn spliced(page: &str, name: &str, section: &str) -> Result<String> {
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let section = section.trim();
    match (page.find(&start), page.find(&end)) {
        (None, None) => Ok(format!("{}\n\n{start}\n\n{section}\n\n{end}\n", page.trim_end())),
        (Some(from), Some(to)) if from < to => {
            Ok(format!("{}\n\n{section}\n\n{}", &page[..from + start.len()], &page[to..]))
        }
        _ => bail!("`{start}` and `{end}` must come in this order, or neither"),
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_section_is_added_where_there_is_none() {
        let page = spliced(TITLE, "xds", "## One\n").unwrap();
        assert_eq!(page, "# Benchmarks\n\n<!-- xds -->\n\n## One\n\n<!-- /xds -->\n");
        let page = spliced(&page, "forecast", "\n## Two").unwrap();
        assert_eq!(
            page,
            "# Benchmarks\n\n<!-- xds -->\n\n## One\n\n<!-- /xds -->\n\n\
             <!-- forecast -->\n\n## Two\n\n<!-- /forecast -->\n"
        );
    }

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = spliced(TITLE, "xds", "## One").unwrap();
        let page = spliced(&page, "forecast", "## Two").unwrap();
        let again = spliced(&page, "xds", "## Three\n\ntext").unwrap();
        assert_eq!(again, page.replace("## One", "## Three\n\ntext"));
        assert_eq!(spliced(&again, "xds", "## One").unwrap(), page, "no lines gather at the markers");
    }

    #[test]
    fn half_a_section_is_refused() {
        for page in ["<!-- xds -->", "<!-- /xds -->", "<!-- /xds --> <!-- xds -->"] {
            let error = spliced(page, "xds", "## One").unwrap_err().to_string();
            assert!(error.contains("<!-- /xds -->"), "{error}");
        }
    }

    #[test]
    fn a_page_is_made_where_there_is_none() {
        let folder = env::temp_dir().join(format!("xtask-page-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (page, written) = (folder.join("page.md"), folder.join("xds.md"));
        fs::write(&written, "## One\n").unwrap();
        put(&page, "xds", &written).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(text, "# Benchmarks\n\n<!-- xds -->\n\n## One\n\n<!-- /xds -->\n");
    }
}
