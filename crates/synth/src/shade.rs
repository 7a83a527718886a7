//! What a surface sample looks like before light falls on it: skin with its painted features, hair, cloth.

use super::geometry::{Material, V3, bell, bell2, dot, lerp, lerp3, mul, scale, smoothstep, sub, unit};
use super::head::Face;
use super::identity::{Beard, HairStyle};
use super::raster::Sample;
use super::rng::{fractal, lattice, noise};
use super::scene::{ClothingKind, Person};

/// Colour and gloss of a point, and how much of a drawn line it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surface {
    pub albedo: V3,
    /// Darkening by creases and sockets, 1 for none.
    pub occlusion: f32,
    /// Strength of the highlight.
    pub gloss: f32,
    /// Sharpness of the highlight.
    pub shine: f32,
    /// 1 on a line that a drawing would have (lids, brows, mouth).
    pub line: f32,
    /// Normal where it is not the mesh's (eyeballs), in head coordinates.
    pub normal: Option<V3>,
}

impl Surface {
    fn matte(albedo: V3) -> Self {
        Self { albedo, occlusion: 1.0, gloss: 0.0, shine: 8.0, line: 0.0, normal: None }
    }
}

/// A person as the shader needs them.
pub(super) struct Model<'a> {
    pub person: &'a Person,
    pub face: Face,
    /// The camera in head coordinates.
    pub camera: V3,
    /// Direction of the light in head coordinates.
    pub light: V3,
    /// Direction of the gaze in head coordinates.
    pub gaze: V3,
    pub skin: V3,
    pub hair: V3,
    pub iris: V3,
}

impl Model<'_> {
    /// The surface at a sample.
    pub(super) fn surface(&self, sample: &Sample) -> Surface {
        let p = sample.coordinate;
        match sample.material {
            Material::Skin => self.head(p, sample.normal),
            Material::Neck => self.neck(p),
            Material::Hair => self.strands(p, sample.normal),
            Material::Cloth => self.cloth(p),
            Material::Frame => {
                let id = &self.person.identity;
                let mut s = Surface::matte([id.frame_red, id.frame_green, id.frame_blue]);
                s.gloss = 0.5;
                s.shine = 20.0;
                s
            }
            Material::Lens => {
                let mut s = Surface::matte([0.07, 0.07, 0.09]);
                s.gloss = 0.5;
                s.shine = 12.0;
                s
            }
            Material::Hat => self.hat(p),
            Material::Scarf => {
                let c = self.person.scarf.map_or([0.5; 3], |c| c.rgb);
                let stripe = smoothstep(0.2, 0.4, (p[1] * 9.0 + p[0] * 2.0).rem_euclid(1.0));
                Surface::matte(scale(c, 0.82 + 0.18 * stripe))
            }
            Material::None | Material::Prop => Surface::matte([0.5; 3]),
        }
    }

    fn head(&self, p: V3, normal: V3) -> Surface {
        let id = &self.person.identity;
        let face = &self.face;
        let [x, y, z] = p;
        let creature = self.person.creature.as_ref();
        if let Some(creature) = creature.filter(|_| z <= 0.05 || y > face.hairline_y) {
            return Surface { gloss: 0.04, ..Surface::matte(creature.fur(face, p)) };
        }
        let skin = creature.map_or(self.skin, |creature| creature.fur(face, p));
        let mut s = Surface { gloss: 0.16, shine: 14.0, ..Surface::matte(skin) };
        if z < -0.1 || id.hair_style == HairStyle::Buzz && y > face.hairline_y {
            s.gloss = 0.06;
        }
        let front = z > 0.05;
        if !front {
            let beard = face.beard(p, id.beard);
            if beard > 0.0 {
                s.albedo = lerp3(s.albedo, self.beard_rgb(p), beard);
            }
            return s;
        }
        if let Some(creature) = creature {
            s.gloss = 0.04;
            let (color, cover) = creature.nose(face, x, y);
            s.albedo = lerp3(s.albedo, color, cover);
            s.gloss += 0.3 * cover;
            s.line = s.line.max(0.5 * cover);
            self.mouth(&mut s, x, y);
            self.eye(&mut s, p, normal);
            return s;
        }
        // Warmth of cheeks and nose.
        let nose = face.nose;
        let flush = (0.30 + 0.6 * id.blush) * (1.0 - 0.45 * id.skin_tone);
        let cheek =
            bell2(x.abs() - 0.40, y - nose[1] - 0.02, 0.15, 0.12) + 0.6 * bell2(x, y - nose[1], 0.10, 0.08);
        s.albedo = mul(s.albedo, lerp3([1.0; 3], [1.03, 0.80, 0.80], (flush * cheek).min(1.0)));
        if id.freckles > 0.6 {
            // One dot in each cell of a grid, jittered.
            let (u, v) = (x * 24.0 + 50.0, y * 24.0 + 50.0);
            let (cu, cv) = (u.floor() as i32, v.floor() as i32);
            let (du, dv) = (0.25 + 0.5 * lattice(cu, cv, 7), 0.25 + 0.5 * lattice(cu, cv, 8));
            let radius = 0.14 + 0.26 * lattice(cu, cv, 9);
            let dot = ((u - cu as f32 - du).powi(2) + (v - cv as f32 - dv).powi(2)).sqrt();
            let spot = smoothstep(radius + 0.1, radius - 0.1, dot)
                * bell2(x.abs() - 0.22, y - nose[1] - 0.10, 0.24, 0.16);
            s.albedo = lerp3(
                s.albedo,
                mul(s.albedo, [0.72, 0.55, 0.46]),
                spot * smoothstep(0.6, 0.85, id.freckles) * 0.95,
            );
        }
        self.wrinkles(&mut s, x, y);
        // Sockets, nostrils and the fold under the lip.
        let eye = face.eyes[1];
        let socket = bell2(x.abs() - eye[0] * 0.86, y - eye[1] - 0.06, 0.13, 0.08);
        s.occlusion *= 1.0 - 0.20 * socket;
        s.occlusion *= 1.0 - 0.10 * bell2(x, y - nose[1] + 0.085, 0.10, 0.03);
        let nostril = bell2(x.abs() - 0.055 - 0.03 * id.nose_width, y - nose[1] + 0.058, 0.024, 0.015);
        s.albedo = lerp3(s.albedo, scale(mul(self.skin, [0.42, 0.26, 0.24]), 0.9), (nostril * 0.9).min(0.65));
        s.line = s.line.max(nostril * 0.55);
        let beard = face.beard(p, id.beard);
        if beard > 0.0 {
            s.albedo = lerp3(s.albedo, self.beard_rgb(p), beard);
            s.gloss *= 1.0 - 0.8 * beard;
            if id.beard != Beard::Stubble {
                s.occlusion *= 1.0 - 0.12 * beard * noise(x * 40.0, y * 14.0, 3);
            }
        }
        self.mouth(&mut s, x, y);
        self.brow(&mut s, x, y);
        self.eye(&mut s, p, normal);
        s
    }

    fn beard_rgb(&self, p: V3) -> V3 {
        let streak = noise(p[0] * 34.0 + p[2] * 30.0, p[1] * 9.0, 11);
        let c = scale(self.hair, 0.72 + 0.4 * streak);
        if self.person.identity.hair_style == HairStyle::Bald { scale(c, 0.95) } else { c }
    }

    fn wrinkles(&self, s: &mut Surface, x: f32, y: f32) {
        let id = &self.person.identity;
        let old = smoothstep(0.42, 0.95, id.age);
        let face = &self.face;
        let ax = x.abs();
        // Nasolabial folds, deeper with age and when smiling.
        let t = (face.nose[1] + 0.02 - y) / (face.nose[1] - face.mouth[1] + 0.06);
        if (-0.1..1.1).contains(&t) {
            let at = 0.145 + 0.02 * id.nose_width + (face.mouth_half - 0.07) * t * 0.75;
            let depth = (0.12 + 0.22 * face.smile.max(0.0) + 0.5 * old) * bell(t - 0.5, 0.38);
            let fold = bell(ax - at, 0.018) * depth;
            s.occlusion *= 1.0 - 0.45 * fold;
            s.line = s.line.max(fold * 0.5);
        }
        if old > 0.0 {
            for k in 0..3 {
                let at = face.brow_y + 0.15 + 0.085 * k as f32 + 0.012 * noise(x * 6.0, k as f32, 5);
                let line = bell(y - at, 0.011) * smoothstep(0.48, 0.2, ax);
                s.occlusion *= 1.0 - 0.22 * old * line;
            }
            let e = face.eyes[1];
            let out = ax - e[0] - face.eye_size[0];
            if out > 0.0 && out < 0.14 {
                let ray = bell((y - e[1]) / (out + 0.06) - 0.5, 0.16)
                    + bell((y - e[1]) / (out + 0.06) + 0.1, 0.16)
                    + bell((y - e[1]) / (out + 0.06) + 0.7, 0.16);
                s.occlusion *= 1.0 - 0.25 * old * ray.min(1.0) * smoothstep(0.14, 0.06, out);
            }
            let bag = bell2(ax - e[0] * 0.97, y - e[1] + face.eye_size[1] + 0.055, 0.12, 0.02);
            s.occlusion *= 1.0 - 0.25 * old * bag;
        }
    }

    fn mouth(&self, s: &mut Surface, x: f32, y: f32) {
        let id = &self.person.identity;
        let face = &self.face;
        let half = face.mouth_half;
        let u = x / half;
        if u.abs() > 1.25 {
            return;
        }
        let v = y - face.mouth[1] - face.curve(x);
        let arch = (1.0 - u * u).max(0.0);
        let open = face.opening() * arch.sqrt();
        let top = 0.25 * open;
        let bottom = -0.75 * open;
        let bow = 1.0 - 0.22 * bell(u, 0.13) + 0.10 * bell(u.abs() - 0.28, 0.16);
        let upper = (0.022 + 0.050 * id.lip_upper) * arch.sqrt() * arch.sqrt() * bow;
        let lower = (0.030 + 0.062 * id.lip_lower) * arch;
        let make_up = id.presentation * id.lip_tint;
        let natural = mul(self.skin, [0.92, 0.56, 0.56]);
        let painted = lerp3([0.72, 0.16, 0.22], natural, 0.45);
        let lip = lerp3(natural, painted, (make_up * 1.5 - 0.3).clamp(0.0, 0.9));
        let inside_upper =
            smoothstep(top + upper + 0.008, top + upper - 0.006, v) * smoothstep(top - 0.006, top + 0.002, v);
        let inside_lower = smoothstep(bottom - lower - 0.008, bottom - lower + 0.008, v)
            * smoothstep(bottom + 0.006, bottom - 0.002, v);
        let side = smoothstep(1.02, 0.95, u.abs());
        s.albedo = lerp3(s.albedo, scale(lip, 0.90), inside_upper * side);
        s.albedo = lerp3(s.albedo, lip, inside_lower * side);
        if inside_lower * side > 0.5 {
            s.gloss = 0.30;
            s.shine = 22.0;
        }
        s.occlusion *= 1.0 - 0.22 * bell2(x, v - bottom + lower + 0.055, half * 0.6, 0.03);
        if open > 0.012 && v < top && v > bottom && u.abs() < 0.99 {
            let gum =
                lerp3([0.30, 0.07, 0.08], [0.66, 0.26, 0.26], smoothstep(0.45, 0.0, (v - bottom) / open));
            s.albedo = scale(gum, 0.75);
            s.gloss = 0.0;
            let teeth = (0.45 * open).clamp(0.02, 0.065);
            if v > top - teeth && u.abs() < 0.86 {
                s.albedo = [0.95, 0.93, 0.90];
            }
            s.occlusion *= 0.9;
            s.line = s.line.max(smoothstep(0.012, 0.004, (v - top).abs().min((v - bottom).abs())));
        } else {
            let width = 0.011 + 0.007 * bell(u.abs() - 0.95, 0.12);
            let seam = bell(v - 0.5 * (top + bottom), width) * smoothstep(1.12, 0.98, u.abs());
            if open <= 0.012 {
                s.albedo = lerp3(s.albedo, scale(mul(self.skin, [0.40, 0.20, 0.20]), 0.9), seam * 0.85);
                s.line = s.line.max(seam);
            }
        }
        // Corners.
        let corner = bell2(u.abs() - 1.04, v / half, 0.09, 0.13);
        s.occlusion *= 1.0 - 0.35 * corner;
    }

    fn brow(&self, s: &mut Surface, x: f32, y: f32) {
        let id = &self.person.identity;
        let face = &self.face;
        let e = face.eyes[1];
        let a = face.eye_size[0];
        // −1 at the inner end, 1 at the outer.
        let u = (x.abs() - e[0] * 1.05) / (a * 1.14);
        if u.abs() > 1.1 {
            return;
        }
        let frown = -self.person.expression.brow.min(0.0);
        let centre = face.brow_y + (0.02 + 0.055 * id.brow_arch) * (0.8 - (u - 0.12) * (u - 0.12)) - 0.035
            + 0.10 * (id.brow_tilt - 0.5) * u
            - 0.035 * frown * (0.4 - u).max(0.0)
            + 0.02 * face.smile.min(0.0) * u;
        let half = (0.018 + 0.040 * id.brow_thickness) * lerp(1.0, 0.40, smoothstep(0.0, 1.0, u));
        let hairs = 0.8 + 0.35 * noise(x.abs() * 60.0 - y * 30.0, y * 20.0, 9);
        let cover = smoothstep(half * 1.25, half * 0.7, (y - centre).abs())
            * smoothstep(-1.08, -0.9, u)
            * smoothstep(1.08, 0.85, u);
        let grey = super::geometry::luminance(self.hair);
        // Brows are darker than light hair and never vanish into the skin.
        let tone = lerp3(self.hair, [0.16, 0.11, 0.08], if grey > 0.45 { 0.42 } else { 0.22 });
        s.albedo = lerp3(s.albedo, scale(tone, hairs), (cover * 0.94).min(1.0));
        s.line = s.line.max(cover * 0.85);
        s.gloss *= 1.0 - cover;
    }

    fn eye(&self, s: &mut Surface, p: V3, normal: V3) {
        let id = &self.person.identity;
        let face = &self.face;
        let i = usize::from(p[0] > 0.0);
        let e = face.eyes[i];
        let side = if i == 0 { -1.0 } else { 1.0 };
        let [a, b] = face.eye_size;
        // u runs from the inner to the outer corner.
        let dx = (p[0] - e[0]) * side;
        let dy = p[1] - e[1] - face.eye_tilt * dx;
        let u = dx / a;
        if u.abs() > 1.45 || dy.abs() > 0.4 {
            return;
        }
        let open = face.eye_open;
        let arch = (1.0 - u * u).max(0.0);
        let round = arch.sqrt() * (0.55 + 0.45 * arch.sqrt());
        let low =
            -0.62 * b * arch * (1.0 - 0.10 * (open - 1.0)) - 0.10 * b * self.face.smile.max(0.0) * -arch;
        let top = lerp(low, b * round * (1.0 + 0.10 * u), open.min(1.15));
        let lash_width = 0.020 + 0.022 * id.lashes;
        let lash_rgb = lerp3([0.07, 0.05, 0.05], self.hair, 0.12);
        // The lid between crease and opening, and the crease itself.
        let crease_at = b * round * 1.02 + 0.028 + 0.045 * id.lid_crease;
        let fade = smoothstep(1.2, 0.75, u.abs());
        if dy > top {
            let lid = smoothstep(crease_at + 0.01, crease_at - 0.01, dy) * fade;
            let shadow = 0.25 * id.presentation * id.lashes;
            s.albedo = lerp3(s.albedo, mul(self.skin, [0.88, 0.76, 0.74]), lid * (0.45 + shadow));
            let crease = bell(dy - crease_at, 0.012) * fade * smoothstep(0.05, 0.4, id.lid_crease);
            s.occlusion *= 1.0 - 0.42 * crease;
            s.line = s.line.max(0.45 * crease);
        } else if dy < low {
            s.occlusion *= 1.0 - 0.16 * bell(dy - low + 0.035, 0.025) * fade;
        }
        if u.abs() < 1.0 && dy < top && dy > low {
            self.eyeball(s, p, i, (top - dy) / b, normal);
        }
        // Lashes: a thick upper line with a wing, a thin lower one.
        let wing = id.lashes * id.presentation;
        let reach = 1.04 + 0.24 * wing;
        let mid = top + 0.35 * lash_width + 0.10 * wing * smoothstep(0.75, 1.3, u);
        let thick = lash_width * smoothstep(reach, reach - 0.4, u) * smoothstep(-1.12, -0.7, u);
        let line = if thick > 0.0 { smoothstep(thick * 1.1, thick * 0.55, (dy - mid).abs()) } else { 0.0 };
        s.albedo = lerp3(s.albedo, lash_rgb, line * 0.95);
        s.line = s.line.max(line);
        let under = bell(dy - low, 0.010) * smoothstep(1.05, 0.8, u.abs());
        s.albedo = lerp3(s.albedo, mul(self.skin, [0.50, 0.34, 0.32]), under * (0.35 + 0.3 * wing));
        if line > 0.5 {
            s.gloss = 0.0;
            s.normal = None;
        }
    }

    fn eyeball(&self, s: &mut Surface, p: V3, eye: usize, below_lid: f32, normal: V3) {
        let face = &self.face;
        let centre = face.eyeball_centre(eye);
        let r = face.eyeball;
        // Where the line of sight meets the eyeball.
        let ray = unit(sub(p, self.camera));
        let to = sub(p, centre);
        let along = dot(to, ray);
        let gap = (along * along - dot(to, to) + r * r).max(0.0).sqrt();
        let hit = sub(to, scale(ray, along + gap));
        let q = unit(hit);
        let away = (1.0 - dot(q, self.gaze)).max(0.0).sqrt();
        *s = Surface { gloss: 0.0, ..Surface::matte([0.95, 0.94, 0.93]) };
        s.normal = Some(unit(super::geometry::add(scale(q, 0.5), scale(normal, 0.0))));
        // `away` is √2·sin(half the angle from the gaze).
        let (iris, pupil) = (0.385, 0.175);
        if away < iris {
            let t = away / iris;
            let spoke = 0.9 + 0.2 * noise(q[0] * 18.0, q[1] * 18.0, 21);
            let lit = 0.80 + 0.75 * smoothstep(0.2, -0.5, q[1] - self.gaze[1]) * t;
            let c = scale(self.iris, spoke * lit);
            s.albedo = lerp3(c, scale(self.iris, 0.25), smoothstep(0.78, 1.0, t));
            s.line = 0.35 * smoothstep(0.7, 1.0, t);
            let dark = smoothstep(pupil + 0.03, pupil - 0.02, away);
            s.albedo = lerp3(s.albedo, [0.02, 0.02, 0.03], dark);
            s.line = s.line.max(dark);
        } else {
            let red = smoothstep(0.7, 1.0, away);
            s.albedo = lerp3(s.albedo, [0.90, 0.78, 0.76], red * 0.5);
        }
        s.occlusion = 0.62 + 0.38 * smoothstep(0.0, 0.55, below_lid);
        let spark = unit(super::geometry::add(scale(self.light, 0.5), scale(ray, -1.0)));
        let h = dot(q, spark);
        let highlight = smoothstep(0.972, 0.985, h);
        s.albedo = lerp3(s.albedo, [1.35, 1.35, 1.35], highlight);
        if highlight > 0.5 {
            s.occlusion = 1.0;
            s.line = 0.0;
        }
    }

    fn neck(&self, p: V3) -> Surface {
        let kind = self.person.clothing.kind;
        if kind == ClothingKind::Turtleneck && p[1] < -1.12 {
            return self.cloth([p[0], -3.0, p[2]]);
        }
        let mut s = Surface { gloss: 0.05, ..Surface::matte(self.skin) };
        s.occlusion = 0.70 + 0.30 * smoothstep(-0.85, -1.5, p[1]);
        s
    }

    fn strands(&self, p: V3, normal: V3) -> Surface {
        let id = &self.person.identity;
        let [around, s, _] = p;
        let fine = noise(around * 9.0, s * 0.9, 31);
        let coarse = noise(around * 3.0, s * 0.6, 33);
        let streak = 0.66 + 0.34 * fine + 0.30 * (coarse - 0.4);
        let mut out = Surface::matte(scale(self.hair, streak));
        if matches!(id.hair_style, HairStyle::Curly | HairStyle::Afro) {
            let curl = fractal(around * 7.0, s * 4.5, 35);
            out.albedo = scale(self.hair, 0.45 + 0.95 * curl);
            out.gloss = 0.10;
        } else if id.hair_style == HairStyle::Buzz {
            out.albedo = lerp3(self.hair, self.skin, 0.25);
        } else {
            // Highlights run across the strands: bright where they turn towards the light.
            let along = unit(sub([0.0, 1.0, 0.0], scale(normal, normal[1])));
            let half = unit(super::geometry::add(self.light, [0.0, 0.0, 1.0]));
            let t = dot(along, half);
            let band = (1.0 - t * t).max(0.0);
            let band = band * band * band * band;
            out.albedo = scale(out.albedo, 0.88 + 0.45 * band * band * (0.55 + 0.6 * fine));
            out.gloss = 0.22 * (0.4 + fine);
            out.shine = 10.0;
        }
        out.line = smoothstep(0.22, 0.10, fine) * 0.25;
        out
    }

    fn hat(&self, p: V3) -> Surface {
        let Some(hat) = self.person.hat else { return Surface::matte([0.5; 3]) };
        let mut s = Surface::matte(hat.color.rgb);
        use super::scene::HatKind::*;
        match hat.kind {
            Beanie => {
                let rib = (p[0] * 40.0).rem_euclid(1.0);
                s.occlusion = 0.82 + 0.18 * smoothstep(0.0, 0.3, (rib - 0.5).abs());
                if p[1] > 0.72 {
                    s.albedo = scale(s.albedo, 0.86);
                }
            }
            Cap => {
                if p[2] > 0.5 {
                    s.albedo = scale(s.albedo, 0.82);
                }
            }
            Fedora => {
                if p[2] < 0.5 && p[1] > 0.74 {
                    s.albedo = scale(s.albedo, 0.45);
                }
            }
        }
        s
    }

    fn cloth(&self, p: V3) -> Surface {
        let c = self.person.clothing;
        let [x, y, z] = p;
        let ax = x.abs();
        let folds = fractal(x * 2.2 + 7.0, y * 1.6 + 7.0, 41);
        let mut s = Surface::matte(scale(c.color.rgb, 0.86 + 0.26 * folds));
        let front = z > -0.25;
        let skin = Surface { gloss: 0.06, ..Surface::matte(self.skin) };
        use ClothingKind::*;
        match c.kind {
            TShirt | Striped => {
                let hole = ((x * 1.05).powi(2) + ((y + 1.30) * 1.15).powi(2)).sqrt();
                if front && hole < 0.42 {
                    return skin;
                }
                if c.kind == Striped && (y * 4.2).rem_euclid(1.0) < 0.45 {
                    s.albedo = scale(c.accent.rgb, 0.86 + 0.26 * folds);
                }
                if front && hole < 0.49 {
                    s.albedo = scale(s.albedo, 0.8);
                    s.line = 0.3;
                }
            }
            VNeck => {
                let edge = -2.02 + ax * 1.5;
                if front && y > edge && ax < 0.52 {
                    return skin;
                }
                if front && y > edge - 0.11 && ax < 0.58 {
                    s.albedo = scale(c.accent.rgb, 0.9);
                }
            }
            Turtleneck => {
                let rib = (x * 9.0).rem_euclid(1.0);
                s.occlusion = 0.90 + 0.10 * smoothstep(0.1, 0.4, (rib - 0.5).abs());
            }
            Shirt => {
                let edge = -1.66 + ax * 1.2;
                if front && y > edge && ax < 0.36 {
                    return skin;
                }
                let collar = front && y > edge - 0.26 && y > -1.78 + ax * 0.15 && ax < 0.60;
                if collar {
                    s.albedo = lerp3(c.color.rgb, [1.0; 3], 0.35);
                    s.line = 0.5 * smoothstep(0.05, 0.02, (y - edge + 0.24).abs());
                } else if front && ax < 0.022 {
                    s.occlusion = 0.7;
                    s.line = 0.5;
                } else if front && ax < 0.055 && ((y * 2.6).rem_euclid(1.0) - 0.5).abs() < 0.08 {
                    s.albedo = [0.95, 0.95, 0.92];
                }
            }
            Suit => {
                let opening = -2.75 + ax * 2.6;
                if front && y > opening && ax < 0.62 {
                    let collar = -1.60 + ax * 1.3;
                    if y > collar && ax < 0.28 {
                        return skin;
                    }
                    let knot = 0.075 + 0.05 * smoothstep(-1.75, -2.6, y) - 0.03 * bell(y + 1.78, 0.08);
                    s.albedo = if ax < knot { c.accent.rgb } else { [0.93, 0.93, 0.92] };
                } else if front && y > opening - 0.52 && ax < 0.78 && y < -1.46 {
                    s.albedo = scale(c.color.rgb, 1.22 * (0.9 + 0.2 * folds));
                    s.line = 0.6 * smoothstep(0.09, 0.03, y - opening).max(0.0);
                    if y > opening - 0.06 {
                        s.occlusion = 0.6;
                    }
                }
            }
            Hoodie => {
                let hole = ((x * 1.1).powi(2) + ((y + 1.32) * 1.3).powi(2)).sqrt();
                if front && z > 0.0 && hole < 0.36 {
                    return skin;
                }
                if z > 0.0 && (ax - 0.20).abs() < 0.030 && y > -2.45 && y < -1.52 {
                    s.albedo = c.accent.rgb;
                }
            }
            Dress => {
                let edge = -1.98 - 0.16 * bell(ax - 0.42, 0.3) - 0.10 * bell(ax, 0.12);
                let strap = (ax - 0.74).abs() < 0.085;
                if y > edge && !strap {
                    return skin;
                }
                if y > edge - 0.07 && !strap {
                    s.albedo = scale(c.accent.rgb, 0.95);
                }
            }
        }
        s
    }
}
