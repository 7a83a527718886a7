//! Captions: what a scene shows, in varied words.

use super::identity::{Beard, Glasses, HairColor, HairStyle, Identity};
use super::rng::Rng;
use super::scene::{Background, COLORS, ClothingKind, HatKind, Person, Scene, Style, Subject};

/// A caption of `scene`; details are left out and reworded at random.
pub fn caption(scene: &Scene, rng: &mut Rng) -> String {
    describe(scene, true, rng)
}

/// A caption of `scene` with its heads hidden: without what only they show.
pub fn caption_without_heads(scene: &Scene, rng: &mut Rng) -> String {
    describe(scene, false, rng)
}

/// A caption of `scene` that is wrong in one thing: the colour of hair or of clothes, glasses that nobody wears, or the
/// style. `caption` is [`caption`] or [`caption_without_heads`], and `rng` its random numbers; `change` draws what is wrong.
///
/// Such captions are the hard negatives by which contrastive training learns attributes that it can do without when
/// whole captions differ (Yuksekgonul et al. 2023, arXiv 2210.01936, section 4).
pub fn wrong_caption(
    scene: &Scene,
    caption: fn(&Scene, &mut Rng) -> String,
    rng: &Rng,
    change: &mut Rng,
) -> String {
    let right = caption(scene, &mut rng.clone());
    let mut other = scene.clone();
    let alone = scene.people.len() == 1;
    if !other.people.is_empty() {
        let k = change.below(other.people.len());
        let person = &mut other.people[k];
        match change.weighted(&[3.0, 2.0, 1.0]) {
            0 => {
                let own = person.identity.hair_color;
                let others = HairColor::ALL.iter().copied().filter(|color| !alike(own, *color));
                person.identity.hair_color = change.pick(&others.collect::<Vec<_>>());
            }
            // Of several people another's glasses could be named instead, and rightly.
            1 if alone => person.identity.glasses = person.identity.glasses.or(Some(Glasses::Round)),
            _ => person.clothing.color = another(&COLORS, person.clothing.color, change),
        }
    }
    let wrong = caption(&other, &mut rng.clone());
    // What was changed may be left out: nothing is wrong then. Glasses draw words of their own and so change others.
    let glasses = |text: &str| text.contains("glasses");
    let added = other.people.iter().zip(&scene.people).any(|(a, b)| a.identity.glasses != b.identity.glasses);
    if wrong != right && (!added || glasses(&wrong) && !glasses(&right)) {
        return wrong;
    }
    caption(&Scene { style: another(Style::ALL, scene.style, change), ..scene.clone() }, &mut rng.clone())
}

/// Colours of hair for which captions have words in common.
fn alike(a: HairColor, b: HairColor) -> bool {
    let shade = |color| match color {
        HairColor::Black | HairColor::DarkBrown => 0,
        HairColor::Brown | HairColor::Auburn => 1,
        HairColor::Blonde | HairColor::Platinum => 2,
        other => 3 + other as usize,
    };
    shade(a) == shade(b)
}

/// One of `all` that is not `this`.
fn another<T: Copy + PartialEq>(all: &[T], this: T, rng: &mut Rng) -> T {
    loop {
        let other = rng.pick(all);
        if other != this {
            return other;
        }
    }
}

fn describe(scene: &Scene, heads: bool, rng: &mut Rng) -> String {
    let style = style(scene.style, rng);
    let what = if scene.people.is_empty() {
        subject(scene, rng)
    } else if scene.people.len() == 1 {
        person(&scene.people[0], heads, rng, 0.72)
    } else {
        let mut order: Vec<&Person> = scene.people.iter().collect();
        order.sort_by(|a, b| a.position[0].total_cmp(&b.position[0]));
        let detail = if order.len() == 2 { 0.5 } else { 0.3 };
        let mut parts: Vec<String> = order.iter().map(|p| person(p, heads, rng, detail)).collect();
        let last = parts.pop().unwrap_or_default();
        format!("{} and {last}", parts.join(", "))
    };
    let place =
        if scene.subject.is_none() && rng.chance(0.75) { background(scene, rng) } else { String::new() };
    let text = match rng.below(5) {
        0 if !place.is_empty() => format!("{what}, {place}, {style}"),
        1 => format!("{style}, {what}{}", comma(&place)),
        2 => format!("{what}, {style}{}", comma(&place)),
        _ => format!("{} of {what}{}", article(style), comma(&place)),
    };
    text.replace("  ", " ")
}

fn comma(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {text}") }
}

fn article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u', '8']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

fn style(style: Style, rng: &mut Rng) -> &'static str {
    match style {
        Style::Photo => {
            rng.pick(&["photo", "photograph", "studio photo", "realistic picture", "portrait photo"])
        }
        Style::FlatCartoon => rng.pick(&["cartoon", "flat cartoon", "comic drawing", "cel-shaded cartoon"]),
        Style::InkSketch => rng.pick(&["ink sketch", "pen drawing", "black and white sketch", "ink drawing"]),
        Style::Watercolor => rng.pick(&["watercolor painting", "watercolor", "watercolour portrait"]),
        Style::Oil => rng.pick(&["oil painting", "painting in oil", "impressionist oil painting"]),
        Style::PopArt => rng.pick(&["pop art print", "pop art poster", "halftone pop art picture"]),
        Style::PixelArt => rng.pick(&["pixel art picture", "8-bit pixel art image", "pixel art"]),
        Style::Neon => rng.pick(&["neon picture", "glowing neon artwork", "neon light drawing"]),
    }
}

fn noun(id: &Identity, rng: &mut Rng) -> &'static str {
    if id.presentation > 0.6 {
        rng.pick(&["woman", "woman", "woman", "lady", "person"])
    } else if id.presentation < 0.4 {
        rng.pick(&["man", "man", "man", "guy", "person"])
    } else {
        "person"
    }
}

/// One draw for every colour, so that a caption of another colour has the same words otherwise.
fn hair_color(color: HairColor, rng: &mut Rng) -> &'static str {
    match color {
        HairColor::Black => rng.pick(&["black"]),
        HairColor::DarkBrown => rng.pick(&["dark brown", "dark"]),
        HairColor::Brown => rng.pick(&["brown"]),
        HairColor::Auburn => rng.pick(&["auburn", "reddish brown"]),
        HairColor::Red => rng.pick(&["red", "ginger", "orange"]),
        HairColor::Blonde => rng.pick(&["blonde", "blond"]),
        HairColor::Platinum => rng.pick(&["platinum blonde", "light blonde"]),
        HairColor::Grey => rng.pick(&["grey", "gray"]),
        HairColor::White => rng.pick(&["white"]),
        HairColor::Pink => rng.pick(&["pink"]),
        HairColor::Blue => rng.pick(&["blue"]),
        HairColor::Teal => rng.pick(&["teal", "turquoise"]),
        HairColor::Purple => rng.pick(&["purple", "violet"]),
    }
}

fn hair(id: &Identity, rng: &mut Rng) -> String {
    let c = hair_color(id.hair_color, rng);
    let a = if c.starts_with(['a', 'o']) { "an" } else { "a" };
    match id.hair_style {
        HairStyle::Bald => rng.pick(&["a bald head", "no hair"]).into(),
        HairStyle::Buzz => format!("{a} {c} buzz cut"),
        HairStyle::Short => format!("short {c} hair"),
        HairStyle::SidePart => format!("{c} hair parted at the side"),
        HairStyle::Quiff => format!("{a} {c} quiff"),
        HairStyle::Curly => format!("curly {c} hair"),
        HairStyle::Afro => format!("{a} {c} afro"),
        HairStyle::Bob => format!("{a} {c} bob"),
        HairStyle::BobBangs => format!("{a} {c} bob with bangs"),
        HairStyle::Long => format!("long {c} hair"),
        HairStyle::LongBangs => format!("long {c} hair and bangs"),
        HairStyle::LongWavy => format!("long wavy {c} hair"),
        HairStyle::Ponytail => format!("{a} {c} ponytail"),
        HairStyle::Bun => format!("{c} hair in a bun"),
        HairStyle::Pixie => format!("{a} {c} pixie cut"),
        HairStyle::Receding => format!("receding {c} hair"),
    }
}

fn person(person: &Person, heads: bool, rng: &mut Rng, detail: f32) -> String {
    let id = &person.identity;
    if let Some(creature) = &person.creature {
        let text = if heads { format!("a {}", creature.species.name()) } else { "an animal".to_owned() };
        return if rng.chance(detail) { format!("{text} in {}", clothing(person, rng)) } else { text };
    }
    let mut head = String::from("a ");
    if rng.chance(detail * 0.6) {
        head = match id.age {
            a if a > 0.62 => rng.pick(&["an old ", "an elderly ", "an older "]).into(),
            a if a < 0.22 => rng.pick(&["a young ", "a youthful "]).into(),
            a if a > 0.38 => rng.pick(&["a middle-aged ", "a "]).into(),
            _ => head,
        };
    } else if person.expression.smile > 0.45 && rng.chance(detail * 0.6) {
        head = rng.pick(&["a smiling ", "a happy ", "a cheerful "]).into();
    } else if person.expression.smile < -0.15 && rng.chance(detail * 0.6) {
        head = rng.pick(&["a serious ", "a sad "]).into();
    }
    let mut with = Vec::new();
    if rng.chance(detail + 0.12) {
        with.push(hair(id, rng));
    }
    if let Some(shape) = id.glasses
        && rng.chance(detail + 0.15)
    {
        with.push(
            match shape {
                Glasses::Round => rng.pick(&["round glasses", "glasses"]),
                Glasses::Square => rng.pick(&["square glasses", "glasses"]),
                Glasses::CatEye => rng.pick(&["cat-eye glasses", "glasses"]),
                Glasses::Wide => rng.pick(&["wide glasses", "glasses"]),
                Glasses::Sun => rng.pick(&["sunglasses", "dark glasses"]),
            }
            .into(),
        );
    }
    if rng.chance(detail + 0.1) {
        match id.beard {
            Beard::None => {}
            Beard::Stubble => with.push("stubble".into()),
            Beard::Moustache => with.push(rng.pick(&["a moustache", "a mustache"]).into()),
            Beard::Goatee => with.push("a goatee".into()),
            Beard::Short => with.push(rng.pick(&["a short beard", "a beard"]).into()),
            Beard::Full => with.push(rng.pick(&["a full beard", "a big beard", "a beard"]).into()),
        }
    }
    if id.freckles > 0.75 && rng.chance(detail * 0.6) {
        with.push("freckles".into());
    }
    if (rng.chance(0.25)) && with.len() > 1 {
        with.rotate_left(1);
    }
    let hat = person.hat.filter(|_| heads);
    if !heads {
        head = String::from("a ");
        with.clear();
    }
    let mut text = head + noun(id, rng);
    if let Some((last, first)) = with.split_last() {
        text += " with ";
        if !first.is_empty() {
            text += &first.join(", ");
            text += " and ";
        }
        text += last;
    }
    if rng.chance(detail) {
        text += rng.pick(&[" in ", " wearing ", " in "]);
        text += &clothing(person, rng);
        if let Some(hat) = hat {
            text += " and ";
            text += &self::hat(hat.kind, hat.color.name);
        }
        if let Some(scarf) = person.scarf {
            text += &format!(" with a {} scarf", scarf.name);
        }
    } else if let Some(hat) = hat {
        text += " wearing ";
        text += &self::hat(hat.kind, hat.color.name);
    }
    if heads && person.yaw.abs() > 32.0 && rng.chance(detail * 0.6) {
        text += if person.yaw > 0.0 { " looking to the right" } else { " looking to the left" };
    }
    text
}

fn hat(kind: HatKind, color: &str) -> String {
    let name = match kind {
        HatKind::Beanie => "beanie",
        HatKind::Cap => "cap",
        HatKind::Fedora => "hat",
    };
    article(&format!("{color} {name}"))
}

fn clothing(person: &Person, rng: &mut Rng) -> String {
    let c = person.clothing.color.name;
    let name = match person.clothing.kind {
        ClothingKind::TShirt => rng.pick(&["t-shirt", "shirt"]),
        ClothingKind::VNeck => rng.pick(&["v-neck sweater", "sweater"]),
        ClothingKind::Turtleneck => rng.pick(&["turtleneck", "sweater"]),
        ClothingKind::Shirt => rng.pick(&["shirt", "collared shirt"]),
        ClothingKind::Suit => rng.pick(&["suit", "suit and tie"]),
        ClothingKind::Hoodie => "hoodie",
        ClothingKind::Dress => rng.pick(&["dress", "top"]),
        ClothingKind::Striped => {
            return article(&format!("{c} and {} striped shirt", person.clothing.accent.name));
        }
    };
    article(&format!("{c} {name}"))
}

fn background(scene: &Scene, rng: &mut Rng) -> String {
    let (c, d) = (scene.color.name, scene.accent.name);
    match scene.background {
        Background::Plain => format!("{c} background"),
        Background::Gradient => format!("{c} and {d} background"),
        Background::Sky => {
            rng.pick(&["sky background", "blue sky with clouds", "clouds in the background"]).into()
        }
        Background::Forest => rng.pick(&["forest background", "in a forest", "in the woods"]).into(),
        Background::City => {
            rng.pick(&["city background", "in a city", "skyscrapers in the background"]).into()
        }
        Background::Room => rng.pick(&["in a room", "indoors", "room with a window and books"]).into(),
        Background::Beach => rng.pick(&["beach background", "on a beach", "by the sea"]).into(),
        Background::Stripes => format!("{c} and {d} stripes in the background"),
        Background::Stars => {
            rng.pick(&["starry background", "starry night sky", "in space among stars"]).into()
        }
        Background::Sunset => rng.pick(&["sunset background", "at sunset"]).into(),
        Background::Mountains => rng.pick(&["mountains in the background", "in the mountains"]).into(),
        Background::Bokeh => rng.pick(&["blurred lights in the background", "bokeh background"]).into(),
    }
}

fn subject(scene: &Scene, rng: &mut Rng) -> String {
    let c = scene.accent.name;
    match scene.subject.unwrap_or(Subject::Landscape) {
        Subject::Landscape => rng.pick(&["a landscape", "a wide landscape", "nature"]).into(),
        Subject::Fruit => format!("fruit in {} bowl", article(c)),
        Subject::House => rng.pick(&["a house", "a small house in the mountains", "a cottage"]).into(),
        Subject::Car => format!("{} car in the city", article(c)),
        Subject::Tree => rng.pick(&["a tree", "a tree in a meadow"]).into(),
        Subject::Ball => format!("{} ball", article(c)),
        Subject::Boat => rng.pick(&["a sailing boat", "a boat on the sea"]).into(),
        Subject::Flower => format!("{} flower", article(c)),
    }
}
