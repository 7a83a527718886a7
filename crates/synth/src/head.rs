//! The head: skull, face relief, eyes and ears, in head coordinates (x to the image's right, y up, z towards the
//! viewer; the head is about 2 high).

use super::geometry::{Material, Mesh, V3, bell, bell2, lerp, smoothstep, spline};
use super::identity::{Beard, Identity};
use super::scene::Expression;

/// Horizontal slices from crown to chin: height, half-width, front, back, and where the slice is widest.
const SLICES: [[f32; 5]; 11] = [
    [1.00, 0.00, -0.05, -0.05, -0.05],
    [0.93, 0.36, 0.33, -0.46, -0.06],
    [0.75, 0.59, 0.58, -0.76, -0.08],
    [0.48, 0.715, 0.72, -0.92, -0.10],
    [0.20, 0.755, 0.775, -0.97, -0.10],
    [-0.06, 0.74, 0.765, -0.92, -0.06],
    [-0.30, 0.70, 0.755, -0.78, 0.00],
    [-0.55, 0.62, 0.735, -0.56, 0.10],
    [-0.78, 0.475, 0.70, -0.28, 0.22],
    [-0.94, 0.265, 0.63, 0.10, 0.36],
    [-1.00, 0.00, 0.47, 0.46, 0.46],
];

/// Where the parts of a face are, and how it is moved.
#[derive(Debug, Clone)]
pub(super) struct Face {
    /// Centres of the eye openings on the skin, image-left first.
    pub eyes: [V3; 2],
    /// Half-width and half-height of an eye opening.
    pub eye_size: [f32; 2],
    /// Sine of the eyes' tilt.
    pub eye_tilt: f32,
    /// Radius of the eyeballs; their centres lie behind `eyes`.
    pub eyeball: f32,
    /// 1 is wide open, 0 closed.
    pub eye_open: f32,
    pub brow_y: f32,
    pub nose: V3,
    pub mouth: V3,
    pub mouth_half: f32,
    pub smile: f32,
    pub gape: f32,
    pub chin_y: f32,
    pub hairline_y: f32,
    /// How far an animal's muzzle juts.
    muzzle: f32,
    scale: [f32; 3],
    lower: f32,
    jaw: f32,
    square: f32,
}

impl Face {
    pub(super) fn new(id: &Identity, expression: &Expression, muzzle: f32) -> Self {
        let lower = 0.93 + 0.16 * id.face_length;
        let eye_y = -0.10 + 0.10 * (id.eye_height - 0.5);
        let nose_y = eye_y - (0.36 + 0.13 * (id.nose_length - 0.5)) * lower;
        let mouth_y = nose_y - (0.215 + 0.07 * (id.mouth_height - 0.5)) * lower;
        let wide = 0.84 + 0.30 * id.skull_width;
        let spacing = (0.285 + 0.07 * (id.eye_spacing - 0.5)) * (0.6 + 0.4 * wide);
        let a = 0.168 + 0.062 * id.eye_size;
        let b = a * (0.50 + 0.30 * id.eye_open);
        let mut face = Self {
            eyes: [[-spacing, eye_y, 0.0], [spacing, eye_y, 0.0]],
            eye_size: [a, b],
            eye_tilt: 0.36 * (id.eye_tilt - 0.45),
            eyeball: a * 1.12,
            eye_open: (1.0 - expression.lids).clamp(0.0, 1.3) * (1.0 - 0.13 * expression.smile.max(0.0)),
            brow_y: eye_y + b + 0.120 + 0.06 * id.brow_height + 0.05 * expression.brow,
            nose: [0.0, nose_y, 0.0],
            mouth: [0.0, mouth_y, 0.0],
            mouth_half: (0.185 + 0.10 * id.mouth_width) * (1.0 + 0.22 * expression.smile.max(0.0)),
            smile: expression.smile,
            gape: expression.mouth_open,
            chin_y: -lower,
            hairline_y: 0.50 + 0.16 * (id.hairline - 0.4) + 0.06 * id.skull_height,
            muzzle,
            scale: [wide, 0.90 + 0.20 * id.skull_height, 0.92 + 0.16 * id.skull_depth],
            lower,
            jaw: 0.80 + 0.42 * id.jaw_width + 0.14 * (id.fullness - 0.5),
            square: id.jaw_square,
        };
        face.eyes = face.eyes.map(|[x, y, _]| [x, y, face.front(x, y, id)]);
        face.nose[2] = face.front(0.0, face.nose[1], id);
        face.mouth[2] = face.front(0.0, face.mouth[1], id);
        face
    }

    /// Slice at `s` in [0, 10] (crown to chin): height, half-width, front, back, widest.
    fn slice(&self, s: f32) -> [f32; 5] {
        let [y, w, f, b, m] = spline(&SLICES, s);
        let down = smoothstep(0.1, -0.6, y);
        let corner = bell(y + 0.72, 0.16) * (self.square - 0.5) * 0.22;
        let width = lerp(self.scale[0], lerp(self.scale[0], self.jaw, 0.75), down) * (1.0 + corner);
        let y = if y > 0.0 { y * self.scale[1] } else { y * self.lower };
        [y, w * width, f, m + (b - m) * self.scale[2], m]
    }

    /// The bare skull at azimuth `theta` (given as sine and cosine; 0 faces the viewer) and slice `s`.
    pub(super) fn skull(&self, sine: f32, cosine: f32, s: f32) -> V3 {
        let [y, w, f, b, m] = self.slice(s);
        let z = if cosine > 0.0 {
            // A face is flatter than an ellipse.
            m + (f - m) * cosine * (1.22 - 0.22 * cosine)
        } else {
            m + (m - b) * cosine
        };
        [w * sine, y, z]
    }

    /// Relief of the face at (x, y), towards the viewer.
    fn relief(&self, x: f32, y: f32, id: &Identity) -> f32 {
        let ax = x.abs();
        let mut z = 0.0;
        let eye = self.eyes[1];
        z -= 0.075 * bell2(ax - eye[0] * 0.92, y - eye[1] - 0.01, 0.13, 0.10);
        z += 0.030 * bell2(ax - eye[0], y - eye[1], self.eye_size[0] * 0.9, self.eye_size[1]);
        let ridge = 0.028 + 0.030 * (1.0 - id.presentation);
        z += ridge * bell2(ax - eye[0] * 0.8, y - self.brow_y, 0.22, 0.07);
        z += (0.02 + 0.07 * id.cheek) * bell2(ax - 0.43, y - self.nose[1] - 0.08, 0.17, 0.13);
        z += 0.05 * self.smile.max(0.0) * bell2(ax - 0.36, y - self.nose[1] + 0.01, 0.13, 0.11);
        z += (0.07 * id.fullness - 0.025) * bell2(ax - 0.40, y - self.mouth[1], 0.16, 0.18);
        // Nose: a ridge from the bridge to the tip, a ball at the tip and two wings.
        let top = eye[1] + 0.10;
        let bottom = self.nose[1];
        let t = (top - y) / (top - bottom);
        if t > -0.3 && t < 1.5 {
            let height = if t < 0.0 {
                0.06 * bell(t, 0.2)
            } else {
                0.06 + 0.05 * id.nose_bridge
                    + (0.105 + 0.055 * id.nose_bridge) * t
                    + 0.05 * (id.nose_hook - 0.4) * 4.0 * t * (1.0 - t).max(0.0)
            };
            let under = smoothstep(1.36, 0.98, t);
            let width = lerp(0.050, 0.075 + 0.03 * id.nose_width, t.clamp(0.0, 1.0));
            z += height * under * bell(ax, width);
            let ball = 0.045 + 0.06 * id.nose_tip;
            z += ball * under * bell2(ax, y - bottom, 0.075 + 0.02 * id.nose_tip, 0.08);
            let wing = 0.085 + 0.06 * id.nose_width;
            z += (0.085 + 0.04 * id.nose_width) * under * bell2(ax - wing, y - bottom + 0.005, 0.052, 0.06);
        }
        if self.muzzle > 0.0 {
            z += self.muzzle * bell2(ax, y - 0.5 * (self.nose[1] + self.mouth[1]) - 0.02, 0.30, 0.24);
        }
        // Lips and chin.
        let m = self.mouth_half;
        let gap = 0.05 * self.gape;
        let lift = self.curve(x);
        let my = self.mouth[1] + lift;
        z += (0.02 + 0.035 * id.lip_upper) * bell2(ax, y - my - 0.045, m * 0.62, 0.05);
        z += (0.02 + 0.045 * id.lip_lower) * bell2(ax, y - my + 0.06 + gap * 2.0, m * 0.5, 0.05);
        z -= 0.03 * bell2(ax, y - self.mouth[1] + 0.145 + gap * 2.0, m * 0.7, 0.045);
        z += (0.03 + 0.09 * id.chin)
            * bell2(ax, y - self.chin_y - 0.12 + gap, 0.10 + 0.12 * id.chin_width, 0.10);
        z
    }

    /// How far the line of the mouth is raised at `x`.
    pub(super) fn curve(&self, x: f32) -> f32 {
        let u = x / self.mouth_half;
        let u = (u * u).min(1.6);
        self.smile * (0.085 * u - 0.02)
    }

    /// Height of the mouth's opening at its middle.
    pub(super) fn opening(&self) -> f32 {
        0.17 * self.gape
    }

    /// z of the face's front at (x, y).
    pub(super) fn front(&self, x: f32, y: f32, id: &Identity) -> f32 {
        let (mut low, mut high) = (2.0f32, 10.0f32);
        for _ in 0..14 {
            let s = 0.5 * (low + high);
            if self.slice(s)[0] > y { low = s } else { high = s }
        }
        let [_, w, ..] = self.slice(low);
        let sine = (x / w.max(0.05)).clamp(-0.95, 0.95);
        let cosine = (1.0 - sine * sine).sqrt();
        self.skull(sine, cosine, low)[2] + self.relief(x, y, id) * smoothstep(0.05, 0.5, cosine)
    }

    /// Centre of an eyeball.
    pub(super) fn eyeball_centre(&self, eye: usize) -> V3 {
        let e = self.eyes[eye];
        let r = self.eyeball;
        [e[0] * 0.985, e[1], e[2] - 0.90 * r]
    }

    /// Coverage of the beard in [0, 1] at a point of the face.
    pub(super) fn beard(&self, p: V3, style: Beard) -> f32 {
        let [x, y, z] = p;
        if style == Beard::None || z < -0.25 || y > self.eyes[0][1] {
            return 0.0;
        }
        let ax = x.abs();
        let my = self.mouth[1] + self.curve(x);
        let lip = {
            let d = self.nose[1] - 0.075;
            let band = smoothstep(my + 0.015, my + 0.05, y) * smoothstep(d + 0.025, d - 0.02, y);
            band * smoothstep(self.mouth_half + 0.10, self.mouth_half + 0.02, ax)
        };
        let open = self.opening();
        let gap = {
            let u = ax / (self.mouth_half * 1.02);
            let v = (y - my + 0.03 + open * 0.5) / (0.085 + open * 0.5);
            smoothstep(0.95, 1.15, (u * u + v * v).sqrt())
        };
        let chin = smoothstep(my - 0.02, my - 0.08, y)
            * smoothstep(0.29, 0.21, ax)
            * smoothstep(0.7, 1.05, ((ax / 0.15).powi(2) + ((y - my + 0.11) / 0.06).powi(2)).sqrt() + 0.35);
        let edge = lerp(my + 0.03, self.eyes[0][1] - 0.10, smoothstep(0.28, 0.68, ax));
        let cheeks = smoothstep(edge + 0.04, edge - 0.05, y) * smoothstep(-0.22, -0.05, z);
        match style {
            Beard::None => 0.0,
            Beard::Stubble => 0.42 * (cheeks * gap).max(lip * 0.9),
            Beard::Moustache => lip,
            Beard::Goatee => lip.max(chin * gap).max(
                bell(ax - self.mouth_half - 0.045, 0.03)
                    * smoothstep(my - 0.2, my - 0.1, y)
                    * smoothstep(my + 0.06, my, y),
            ),
            Beard::Short | Beard::Full => (cheeks * gap).max(lip),
        }
    }

    /// The mesh of head and face.
    pub(super) fn mesh(&self, id: &Identity) -> Mesh {
        const ROWS: usize = 70;
        const COLUMNS: usize = 72;
        let pi = std::f32::consts::PI;
        let angles: Vec<(f32, f32)> = (0..COLUMNS)
            .map(|j| {
                let t = 2.0 * j as f32 / COLUMNS as f32 - 1.0;
                let theta = pi * (0.55 * t + 0.45 * t * t * t);
                (libm::sinf(theta), libm::cosf(theta))
            })
            .collect();
        let growth = match id.beard {
            Beard::Full => 0.13,
            Beard::Short => 0.055,
            Beard::Goatee => 0.045,
            Beard::Moustache => 0.035,
            _ => 0.0,
        };
        Mesh::grid(Material::Skin, ROWS, COLUMNS, true, |i, j| {
            let r = i as f32 / (ROWS - 1) as f32;
            // Denser rows around nose and mouth.
            let s = 10.0 * (r - 0.08 * libm::sinf(2.0 * pi * (r - 0.65)) + 0.064_72);
            let (sine, cosine) = angles[j];
            let mut p = self.skull(sine, cosine, s.clamp(0.0, 10.0));
            let front = smoothstep(0.05, 0.5, cosine);
            if front > 0.0 {
                p[2] += front * self.relief(p[0], p[1], id);
            }
            if growth > 0.0 {
                let c = self.beard(p, id.beard);
                p[2] += growth * c * (0.4 + 0.6 * front);
                p[0] += 0.35 * growth * c * p[0].signum() * (p[0].abs() * 4.0).min(1.0);
                p[1] -= growth * c * 0.9 * smoothstep(self.chin_y + 0.4, self.chin_y, p[1]);
            }
            p[1] -= 0.07 * self.gape * smoothstep(self.mouth[1], self.chin_y, p[1]);
            p
        })
    }

    /// Both ears.
    pub(super) fn ears(&self, id: &Identity) -> Vec<Mesh> {
        let y = self.eyes[0][1] - 0.09;
        let [_, w, ..] = self.slice(5.5);
        let size = 0.16 + 0.08 * id.ear_size;
        let out = 0.25 + 0.55 * id.ear_stick;
        [-1.0, 1.0]
            .map(|side| {
                Mesh::ellipsoid(
                    Material::Skin,
                    (11, 14),
                    [side * (w + 0.01), y, -0.12],
                    [size * 0.42, size * 1.15, size * 0.72],
                    |p| {
                        // Leans out at the back, narrows to the lobe, hollow outside.
                        let narrow = 1.0 - 0.28 * (0.5 - 0.5 * p[1]);
                        let hollow = 0.75 * (p[0] * side).max(0.0) * bell2(p[1] - 0.1, p[2], 0.45, 0.42);
                        let x = p[0] * 0.55 - side * hollow + side * out * (-p[2] + 0.45);
                        [x, p[1], p[2] * narrow]
                    },
                )
            })
            .into()
    }
}
