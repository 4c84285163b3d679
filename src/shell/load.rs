//! The configuration from its file, and the files that it names: all that can be wrong with them is
//! known before anything is opened.

use std::path::Path;

use super::tls::Keys;
use crate::config::{self, Config};

/// A configuration, and what the files hold that it names.
pub struct Loaded {
    pub(super) config: Config,
    pub(super) keys: Keys,
}

/// Reads a configuration file, and the files that it names.
///
/// # Errors
/// One line for each thing that is wrong with it.
pub fn load(path: &Path) -> Result<Loaded, Vec<String>> {
    let shown = path.display();
    let in_file = |problems: Vec<String>| -> Vec<String> {
        problems.iter().map(|problem| format!("{shown}: {problem}")).collect()
    };
    let bytes = std::fs::read(path).map_err(|error| vec![format!("{shown}: {error}")])?;
    let text = String::from_utf8(bytes).map_err(|_| vec![format!("{shown}: is not UTF-8")])?;
    let environment = |name: &str| std::env::var(name).ok();
    let config = config::parse(&text, &environment)
        .map_err(|errors| in_file(errors.iter().map(|error| error.to_string()).collect()))?;
    let keys = Keys::load(&config).map_err(in_file)?;
    Ok(Loaded { config, keys })
}
