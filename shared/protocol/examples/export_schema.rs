//! Writes the JSON Schema of every document to the crate's folder `schema`: `cargo run -p hiresmed-protocol --example
//! export_schema`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    fs::create_dir_all(&folder)?;
    for (name, schema) in hiresmed_protocol::schema::all() {
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&schema)?))?;
        println!("{}", path.display());
    }
    Ok(())
}
