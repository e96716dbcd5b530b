//! The document of the API is what the code says: `cargo xtask openapi` writes it, this test holds it fast.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use carillon_local::root;

/// Set by `cargo xtask openapi`.
const WRITE: &str = "CARILLON_WRITE_OPENAPI";

#[test]
fn the_document_is_what_the_code_says() -> Result<()> {
    let mut document = api::document();
    document.merge(publish::document());
    api::complete(&mut document);
    let said = document.to_pretty_json()? + "\n";
    let file = root().join("infra/openapi.json");
    if std::env::var_os(WRITE).is_some() {
        return fs::write(&file, said).with_context(|| file.display().to_string());
    }
    ensure!(
        fs::read_to_string(&file)? == said,
        "infra/openapi.json is not what the code says: run `cargo xtask openapi`"
    );
    Ok(())
}
