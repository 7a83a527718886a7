//! Which files a flag names: `a1.png+a2.png:0.7,b.png:0.3`.
//!
//! `+`, `,` and `:` may stand in a file's name as well. So what names a file as a whole is that file: of several readings the
//! one with the longest names that are there counts, from left to right.

use std::path::Path;

/// The photos of one identity, and its weight (1 without one).
#[derive(Debug, PartialEq)]
pub struct Named<'a> {
    pub photos: Vec<&'a str>,
    pub weight: f32,
}

/// Identities separated by commas.
pub fn identities(text: &str) -> Vec<Named<'_>> {
    split(text, ',', &|part| is_there(&identity(part))).into_iter().map(identity).collect()
}

/// Photos separated by `+`, with a weight after a colon.
pub fn identity(text: &str) -> Named<'_> {
    let unweighted = Named { photos: split(text, '+', &is_file), weight: 1.0 };
    if is_there(&unweighted) {
        return unweighted;
    }
    match text.rsplit_once(':').map(|(list, weight)| (list, weight.parse())) {
        Some((list, Ok(weight))) => Named { photos: split(list, '+', &is_file), weight },
        _ => unweighted,
    }
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

fn is_there(named: &Named) -> bool {
    named.photos.iter().all(|photo| is_file(photo))
}

/// Most bytes of a part that is looked for: no path is longer.
const MAX_PATH: usize = 4096;

/// Cuts at separators, but not within a part that is whole: the longest such part first. Where none is, at the next separator.
fn split<'a>(mut text: &'a str, separator: char, is_whole: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let mut parts = Vec::new();
    loop {
        let ends: Vec<usize> = text.match_indices(separator).map(|(at, _)| at).chain([text.len()]).collect();
        let longest = ends.iter().rev().find(|end| **end <= MAX_PATH && is_whole(&text[..**end]));
        let end = *longest.unwrap_or(&ends[0]);
        parts.push(&text[..end]);
        if end == text.len() {
            return parts;
        }
        text = &text[end + separator.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` names, in a folder with these files.
    fn read(files: &[&str], text: &str) -> Vec<(Vec<String>, f32)> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        // Paths are absolute, so that tests may run beside each other.
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let text = text.replace('@', &at(""));
        let short = |photo: &&str| photo.replace(&at(""), "");
        identities(&text)
            .iter()
            .map(|named| (named.photos.iter().map(short).collect(), named.weight))
            .collect()
    }

    fn one(photos: &[&str], weight: f32) -> (Vec<String>, f32) {
        (photos.iter().map(|photo| (*photo).to_owned()).collect(), weight)
    }

    #[test]
    fn photos_identities_and_weights_are_told_apart() {
        let files = ["a", "b", "c"];
        assert_eq!(read(&files, "@a+@b:0.7,@c:0.3"), [one(&["a", "b"], 0.7), one(&["c"], 0.3)]);
        assert_eq!(read(&files, "@a"), [one(&["a"], 1.0)]);
        // What is not there is named as it would be cut.
        assert_eq!(read(&files, "@a+@x:2,@y"), [one(&["a", "x"], 2.0), one(&["y"], 1.0)]);
    }

    #[test]
    fn separators_may_stand_in_names() {
        let files = ["me+you.png", "a,b.png", "12:30", "c", "a", "x+y,z:2"];
        assert_eq!(read(&files, "@me+you.png"), [one(&["me+you.png"], 1.0)]);
        assert_eq!(read(&files, "@me+you.png:0.4"), [one(&["me+you.png"], 0.4)]);
        assert_eq!(read(&files, "@c+@me+you.png+@c"), [one(&["c", "me+you.png", "c"], 1.0)]);
        assert_eq!(read(&files, "@a,b.png"), [one(&["a,b.png"], 1.0)]);
        let two = [one(&["a,b.png"], 0.5), one(&["c"], 1.0)];
        assert_eq!(read(&files, "@a,b.png:0.5,@c"), two);
        assert_eq!(read(&files, "@12:30"), [one(&["12:30"], 1.0)]);
        assert_eq!(read(&files, "@12:30:0.5"), [one(&["12:30"], 0.5)]);
        assert_eq!(read(&files, "@x+y,z:2"), [one(&["x+y,z:2"], 1.0)]);
        assert_eq!(read(&files, "@c+@x+y,z:2,@a:3"), [one(&["c", "x+y,z:2"], 1.0), one(&["a"], 3.0)]);
        assert_eq!(read(&files, "@c,@x+y,z:2"), [one(&["c"], 1.0), one(&["x+y,z:2"], 1.0)]);
    }
}
