//! [`Roles`]: what a model that sees reference pictures is told of them.

use serde::{Deserialize, Serialize};

/// What stands for the names of pictures in a sentence.
const IMAGES: &str = "{images}";

/// Sentences before the prompt, one for each role that reference pictures have. In each, `{images}` becomes their names: `image 2`,
/// `images 1 and 2`, `images 1, 2 and 3`. An empty one is not said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Roles {
    /// Of the picture that is started from.
    pub start: String,
    /// Of each person's photos.
    pub person: String,
    /// Of the style image.
    pub style: String,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            start: "Change {images}.".to_owned(),
            person: "Keep the face of the person in {images}.".to_owned(),
            style: "Draw in the style of {images}.".to_owned(),
        }
    }
}

/// Reference pictures by their numbers, from 1, of each role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The picture that is started from.
    pub start: Option<usize>,
    /// Of each person their index in the request and their photos, in order of number.
    pub people: Vec<(usize, Vec<usize>)>,
    /// The style image.
    pub style: Option<usize>,
}

impl Numbers {
    /// How many pictures there are.
    pub fn count(&self) -> usize {
        let photos: usize = self.people.iter().map(|(_, photos)| photos.len()).sum();
        photos + usize::from(self.start.is_some()) + usize::from(self.style.is_some())
    }
}

impl Roles {
    /// No sentence: the prompt alone is said.
    pub fn silent() -> Self {
        Self { start: String::new(), person: String::new(), style: String::new() }
    }

    /// The sentences of `pictures`, and the prompt: what the model reads.
    pub fn text(&self, pictures: &Numbers, prompt: &str) -> String {
        let start = pictures.start.iter().map(|number| (&self.start, vec![*number]));
        let people = pictures.people.iter().map(|(_, numbers)| (&self.person, numbers.clone()));
        let style = pictures.style.iter().map(|number| (&self.style, vec![*number]));
        let sentences = start.chain(people).chain(style);
        let said = sentences.map(|(sentence, numbers)| sentence.replace(IMAGES, &names(&numbers)));
        let said: Vec<String> =
            said.chain([prompt.to_owned()]).filter(|part| !part.trim().is_empty()).collect();
        said.join(" ")
    }
}

/// `image 1`, `images 1 and 2`, `images 1, 2 and 3`.
fn names(numbers: &[usize]) -> String {
    let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match &texts[..] {
        [] => String::new(),
        [one] => format!("image {one}"),
        [first @ .., last] => format!("images {} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_named_in_its_role_before_the_prompt() {
        let pictures =
            Numbers { start: Some(1), people: vec![(1, vec![2]), (0, vec![3, 4, 5])], style: Some(6) };
        assert_eq!(pictures.count(), 6);
        assert_eq!(
            Roles::default().text(&pictures, "Two friends."),
            "Change image 1. Keep the face of the person in image 2. Keep the face of the person in images 3, 4 and 5. \
             Draw in the style of image 6. Two friends."
        );
        let own = Roles { person: "{images}: Ann, as in {images}.".to_owned(), ..Roles::silent() };
        let people = vec![(0, vec![1, 2])];
        let ann = Numbers { people, ..Numbers::default() };
        assert_eq!(own.text(&ann, ""), "images 1 and 2: Ann, as in images 1 and 2.");
        assert_eq!(Roles::silent().text(&pictures, "a man"), "a man");
        assert_eq!(Roles::default().text(&Numbers::default(), "a man"), "a man");
    }
}
