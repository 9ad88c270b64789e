//! The access token: read once, kept out of every log, error and `Debug`.
//!
//! Made by `cli/` from a file or the environment, used by `transport` alone. It must never be printed.

use std::fmt;
use std::io::Read;
use std::path::Path;

use reqwest::header::HeaderValue;

use crate::error::{Error, Kind, Result};

/// No token is longer; a file that is was named by mistake.
const LONGEST: usize = 8 * 1024;

/// A personal access token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as it was typed or stored; blanks and line ends around it don't count.
    ///
    /// # Errors
    /// `Usage` if it is empty or holds blanks, control characters or anything outside ASCII: none of these can be
    /// in a token, so something else was given. The message doesn't repeat it.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        let wrong = |why: &'static str| Err(Error::new(Kind::Usage, why));
        if text.is_empty() {
            return wrong("the token is empty");
        }
        if text.len() > LONGEST {
            return wrong("the token is too long to be one");
        }
        if text.lines().nth(1).is_some() {
            return wrong("the token has more than one line; give the token alone");
        }
        if text.contains(char::is_whitespace) {
            return wrong("the token holds a blank; give the token alone, without a name or \"Bearer\"");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("the token holds characters that no token has");
        }
        Ok(Token(text.to_owned()))
    }

    /// Reads a token from a file that holds nothing else.
    ///
    /// # Errors
    /// `Local` if the file can't be read, `Usage` as in [`Token::new`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let read = || {
            let mut text = String::new();
            // One byte more than allowed, so that `new` sees that it is too long.
            std::fs::File::open(path)?
                .take(LONGEST as u64 + 1)
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read()
            .map_err(|error| Error::local(format!("read the token file {}", path.display()), &error))?;
        Token::new(&text).map_err(|error| error.during(format!("token file {}", path.display())))
    }

    /// The value of the `Authorization` header, marked so that the HTTP library doesn't print it either.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .map_err(|_| Error::new(Kind::Internal, "the token does not fit a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_shows_itself() {
        let token = Token::new("  s3cret-value\n").unwrap();
        assert!(!format!("{token:?} {token}").contains("s3cret"));
        let header = token.header().unwrap();
        assert!(!format!("{header:?}").contains("s3cret"));
        assert_eq!(header.to_str().unwrap(), "Bearer s3cret-value");
    }

    #[test]
    fn what_can_not_be_a_token_is_refused_without_repeating_it() {
        for text in ["", "  \n", "Bearer abc123", "abc\u{7f}", "tök", "abc\ndef"] {
            let error = Token::new(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text:?}");
            assert!(
                !error.to_string().contains("abc123") && !error.to_string().contains("def"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_file_may_end_with_a_line_end_and_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(Token::from_file(&path).unwrap(), Token::new("abc").unwrap());
        let missing = Token::from_file(&folder.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Local(libc::ENOENT));
    }
}
