//! Media types: guessed from names, and made harmless when content is sent.

const BY_EXTENSION: &[(&str, &str)] = &[
    ("avi", "video/x-msvideo"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("c", "text/plain"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("gif", "image/gif"),
    ("h", "text/plain"),
    ("h5", "application/x-hdf5"),
    ("hdf", "application/x-hdf"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "application/javascript"),
    ("json", "application/json"),
    ("md", "text/markdown"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("nc", "application/x-netcdf"),
    ("ogg", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("py", "text/x-python"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("tsv", "text/tab-separated-values"),
    ("txt", "text/plain"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("xml", "text/xml"),
    ("zip", "application/zip"),
];

/// The entry's `mimetype`.
pub(crate) fn guess(key: &str) -> &'static str {
    let extension = extension(key);
    match extension.as_str() {
        "gz" | "tgz" => return "application/gzip",
        "bz2" => return "application/x-bzip2",
        _ => {}
    }
    let found = BY_EXTENSION.iter().find(|(known, _)| *known == extension);
    found.map_or("application/octet-stream", |(_, kind)| kind)
}

/// The entry's `ext`.
pub(crate) fn extension(key: &str) -> String {
    let name = key.rsplit('/').next().unwrap_or(key);
    match name.trim_start_matches('.').rsplit_once('.') {
        Some((_, extension)) => extension.to_lowercase(),
        None => String::new(),
    }
}

/// `Content-Type` of content: only what a browser won't run survives.
pub(crate) fn sanitised(kind: &str) -> &'static str {
    const KEPT: &[&str] = &[
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "audio/webm",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/tiff",
    ];
    const TEXT: &[&str] = &[
        "text/plain",
        "application/javascript",
        "application/json",
        "application/xhtml+xml",
        "application/xml",
        "image/svg+xml",
        "text/css",
        "text/csv",
        "text/html",
    ];
    if let Some(kept) = KEPT.iter().find(|kept| **kept == kind) {
        kept
    } else if TEXT.contains(&kind) {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}
