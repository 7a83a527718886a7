//! The portrait renderer: pictures of made-up people, with their masks, landmarks and captions.
//!
//! It is the world the `mini` family learns from, and the face maker of the page. Pure Rust, the same pixels on
//! every platform for a seed.
//!
//! ```text
//! identity, pose, clothes ─ head, hair, features (meshes) ─ raster ─ shade ─ style ─ picture
//!                                                              └─ masks, boxes, landmarks
//! ```

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod background;
mod caption;
mod creature;
pub mod dataset;
mod features;
mod geometry;
mod hair;
mod head;
mod identity;
mod masks;
mod raster;
mod rng;
mod scene;
mod shade;
mod style;
#[cfg(test)]
mod tests;

pub use caption::{caption, caption_without_heads, wrong_caption};
pub use creature::{Creature, Species};
pub use identity::{Beard, Glasses, HairColor, HairStyle, Identity, IdentitySplit};
pub use masks::RenderedPerson;
pub use rng::Rng;
pub use scene::{
    Background, COLORS, Clothing, ClothingKind, Color, Expression, Hat, HatKind, Light, Person, Scene,
    SceneOptions, Style, Subject,
};

use geometry::{Material, Rotation, V3, add, dot, lerp, lerp3, scale, smoothstep, unit};
use raster::{Buffer, Placement, Sample};
use shade::{Model, Surface};
use style::Layer;

/// A picture and what is known about it.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The picture, `size × size`.
    pub image: image::RgbImage,
    /// The people of [`Scene::people`], in that order.
    pub people: Vec<RenderedPerson>,
    /// What it shows, in words.
    pub caption: String,
}

/// Smallest and largest side of a picture.
const SIZES: std::ops::RangeInclusive<u32> = 16..=1024;

/// Draws `scene` at `size × size` pixels; sizes outside 16 to 1024 are clamped.
pub fn render(scene: &Scene, size: u32) -> Rendered {
    let size = size.clamp(*SIZES.start(), *SIZES.end()) as usize;
    let mut buffer = Buffer::new(2 * size);
    let mut stands = Vec::with_capacity(scene.people.len());
    for (i, person) in scene.people.iter().enumerate() {
        stands.push(stand(&mut buffer, scene, person, i));
    }
    let mut palette = Vec::new();
    if let Some(subject) = scene.subject.filter(|_| scene.people.is_empty()) {
        let (meshes, colors) = background::props(subject, scene);
        palette = colors;
        let mut rng = Rng::new(scene.seed, 0x9A2);
        let placement = Placement {
            rotation: Rotation::new(rng.range(-25.0, 25.0), rng.range(-12.0, 0.0), 0.0),
            offset: [0.0; 3],
            position: [0.5, 0.56],
            scale: rng.range(0.5, 0.64),
            depth: 0.0,
            person: 255,
        };
        meshes.iter().for_each(|m| buffer.draw(m, &placement));
    }
    let people = stands
        .iter()
        .map(|s| masks::measure(&buffer, s.head.person, &s.model.face, &s.model.person.identity, &s.head))
        .collect();
    let layer = light(scene, &buffer, &stands, &palette);
    let image = style::finish(scene, &layer);
    let caption = caption(scene, &mut Rng::new(scene.seed, 0xCA9));
    Rendered { image, people, caption }
}

/// A person who has been drawn into the buffer.
struct Stand<'a> {
    model: Model<'a>,
    head: Placement,
}

fn stand<'a>(buffer: &mut Buffer, scene: &Scene, person: &'a Person, index: usize) -> Stand<'a> {
    let id = &person.identity;
    let head = Placement {
        rotation: Rotation::new(person.yaw, person.pitch, person.roll),
        offset: [0.0; 3],
        position: person.position,
        scale: person.scale,
        depth: 4.0 * index as f32,
        person: index as u8,
    };
    let body = Placement { rotation: Rotation::new(person.yaw * 0.35, 0.0, person.roll * 0.15), ..head };
    let creature = person.creature.as_ref();
    let face = head::Face::new(id, &person.expression, creature.map_or(0.0, |creature| creature.muzzle));
    buffer.draw(&face.mesh(id), &head);
    let ears = creature.map_or_else(|| face.ears(id), |creature| creature.ears(&face));
    ears.iter().for_each(|m| buffer.draw(m, &head));
    let brim = person.hat.map(|_| features::HAT_BRIM);
    hair::meshes(&face, id, brim).iter().for_each(|m| buffer.draw(m, &head));
    if let Some(shape) = id.glasses {
        features::glasses(&face, id, shape).iter().for_each(|m| buffer.draw(m, &head));
    }
    if let Some(hat) = person.hat {
        features::hat(&face, hat.kind).iter().for_each(|m| buffer.draw(m, &head));
    }
    buffer.draw(&features::neck(id, &head.rotation, &body.rotation), &body);
    features::torso(id, person.clothing.kind).iter().for_each(|m| buffer.draw(m, &body));
    if person.scarf.is_some() {
        features::scarf().iter().for_each(|m| buffer.draw(m, &body));
    }
    // The eyes follow the viewer half-way, so that a turned head still looks alive.
    let [gx, gy] = person.expression.gaze;
    let gaze = head.rotation.inverse(unit([0.75 * gx, 0.65 * gy, 1.0]));
    let ahead = unit([0.4 * gx, 0.35 * gy, 1.0]);
    let gaze = unit(add(scale(gaze, 0.45), scale(ahead, 0.55)));
    let model = Model {
        person,
        camera: head.camera(),
        light: head.rotation.inverse(scene.light.direction),
        gaze,
        skin: creature.map_or_else(|| id.skin_rgb(), Creature::color),
        hair: id.hair_rgb(),
        iris: creature.map_or_else(|| id.iris_rgb(), |creature| creature.iris),
        face,
    };
    Stand { model, head }
}

/// Lights every sample.
fn light(scene: &Scene, buffer: &Buffer, stands: &[Stand], palette: &[V3]) -> Layer {
    let size = buffer.size;
    let half = size / 2;
    let backdrop: Vec<V3> = (0..half * half)
        .map(|p| {
            let (x, y) = ((p % half) as f32 + 0.5, (p / half) as f32 + 0.5);
            background::color(scene, x / half as f32, y / half as f32)
        })
        .collect();
    let mut layer = Layer::new(size, backdrop);
    let view: V3 = [0.0, 0.0, 1.0];
    let halfway = unit(add(scene.light.direction, view));
    for y in 0..size {
        for x in 0..size {
            let p = y * size + x;
            let sample = &buffer.samples[p];
            if sample.material == Material::None {
                layer.albedo[p] = layer.backdrop[(y / 2) * half + x / 2];
                layer.color[p] = layer.albedo[p];
                continue;
            }
            let stand = stands.get(sample.person as usize);
            let surface = match stand {
                Some(s) => s.model.surface(sample),
                None => prop(sample, palette),
            };
            let normal = match (surface.normal, stand) {
                (Some(n), Some(s)) => s.head.rotation.apply(n),
                _ => sample.normal,
            };
            let skin = matches!(sample.material, Material::Skin | Material::Neck);
            // Light scatters inside skin, which softens its relief.
            let soft = if skin { unit(lerp3(normal, [0.0, 0.12, 1.0], 0.22)) } else { normal };
            let lambert = dot(soft, scene.light.direction);
            // Wrapped: light bleeds past the terminator, as it does in skin and cloth.
            let wrap = ((lambert + 0.30) / 1.30).max(0.0);
            let sky = 0.80 + 0.20 * normal[1];
            let around = occlusion(buffer, x, y);
            let hidden = surface.occlusion * if skin { lerp(1.0, around, 0.75) } else { around };
            let ambient = scene.light.ambient;
            let amount = (ambient * sky + 1.02 * (1.0 - ambient) * wrap) * hidden;
            let bleed = if skin { 0.10 * smoothstep(0.75, 0.1, wrap) } else { 0.0 };
            let tint = [
                lerp(1.0, scene.light.color[0], 0.8) + bleed,
                scene.light.color[1],
                lerp(1.0, scene.light.color[2], 0.8) - 0.4 * bleed,
            ];
            let gloss = surface.gloss * power(dot(normal, halfway), surface.shine);
            let rim = 1.0 - normal[2].clamp(0.0, 1.0);
            let rim = 0.16 * rim * rim * rim * hidden;
            let mut c = [0.0; 3];
            for k in 0..3 {
                c[k] = surface.albedo[k] * amount * tint[k] * 1.10 + gloss + rim * (0.4 + surface.albedo[k]);
            }
            layer.albedo[p] = surface.albedo;
            layer.color[p] = c;
            layer.light[p] = amount;
            layer.line[p] = surface.line;
            layer.gloss[p] = gloss;
        }
    }
    layer.outline(buffer);
    layer
}

fn prop(sample: &Sample, palette: &[V3]) -> Surface {
    let mut albedo = palette.get(sample.tint as usize).copied().unwrap_or([0.5; 3]);
    if sample.tint == 8 || sample.tint == 4 {
        albedo =
            scale(albedo, 0.75 + 0.5 * rng::noise(sample.coordinate[0] * 9.0, sample.coordinate[1] * 9.0, 3));
    }
    Surface { albedo, occlusion: 1.0, gloss: 0.22, shine: 18.0, line: 0.0, normal: None }
}

/// `max(x, 0)^exponent` for the highlight, by Schlick's rational approximation.
fn power(x: f32, exponent: f32) -> f32 {
    let x = x.max(0.0);
    x / (exponent - exponent * x + x).max(1e-6)
}

/// Share of the sky seen at a sample: 1 in the open, less beside and below nearer surfaces.
fn occlusion(buffer: &Buffer, x: usize, y: usize) -> f32 {
    const RING: [(i32, i32); 10] =
        [(0, -3), (2, -2), (3, 0), (2, 2), (0, 3), (-2, 2), (-3, 0), (-2, -2), (0, -7), (0, -5)];
    let size = buffer.size as i32;
    let unit = (size as f32 / 128.0).max(0.5);
    let here = &buffer.samples[y * buffer.size + x];
    let mut hidden = 0.0;
    for (dx, dy) in RING {
        let sx = x as i32 + (dx as f32 * unit) as i32;
        let sy = y as i32 + (dy as f32 * unit) as i32;
        if sx < 0 || sy < 0 || sx >= size || sy >= size {
            continue;
        }
        let nearer = buffer.samples[(sy * size + sx) as usize].depth - here.depth;
        if nearer > 0.0 {
            let sample = &buffer.samples[(sy * size + sx) as usize];
            let own = if sample.material == here.material { 0.4 } else { 1.0 };
            hidden += own * smoothstep(0.03, 0.22, nearer) * smoothstep(2.2, 0.9, nearer);
        }
    }
    1.0 - 0.055 * hidden
}
