//! A binary JSON document: its text is JSON, and not longer than such a document can be.
#![no_main]

use cdc_reader::encode::json::write_document;
use libfuzzer_sys::fuzz_target;
use schemas::json_text::JsonForm;

fuzz_target!(|document: &[u8]| {
    let mut text = Vec::new();
    let written = write_document(document, JsonForm::MySql, &mut text);
    // Each value is worth a byte of the document, and a double has the longest text: up to 330 characters.
    assert!(text.len() <= 400 + 400 * document.len(), "{} bytes of {}", text.len(), document.len());
    if written.is_ok()
        && let Ok(text) = str::from_utf8(&text)
    {
        // Only its syntax: a `Value` refuses numbers that its own types cannot hold.
        serde_json::from_str::<serde::de::IgnoredAny>(text).expect("is JSON");
    }
});
