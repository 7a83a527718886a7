//! Vectors, rotations, meshes and the surfaces they are built from.

pub(super) type V3 = [f32; 3];

pub(super) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}
pub(super) fn sub(a: V3, b: V3) -> V3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}
pub(super) fn scale(a: V3, s: f32) -> V3 {
    [a[0] * s, a[1] * s, a[2] * s]
}
pub(super) fn mul(a: V3, b: V3) -> V3 {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}
pub(super) fn dot(a: V3, b: V3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
pub(super) fn cross(a: V3, b: V3) -> V3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
pub(super) fn unit(a: V3) -> V3 {
    scale(a, 1.0 / dot(a, a).max(1e-12).sqrt())
}
pub(super) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}
pub(super) fn lerp3(a: V3, b: V3, t: f32) -> V3 {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t), lerp(a[2], b[2], t)]
}
pub(super) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
/// A bell of unit height and width `sigma`: a compact rational stand-in for a Gaussian, `(1 + x²/4)⁻⁴`.
pub(super) fn bell(x: f32, sigma: f32) -> f32 {
    let q = x / sigma;
    let t = 1.0 / (1.0 + q * q * 0.125);
    let t = t * t;
    t * t
}
pub(super) fn bell2(x: f32, y: f32, sx: f32, sy: f32) -> f32 {
    let (a, b) = (x / sx, y / sy);
    bell((a * a + b * b).sqrt(), 1.0)
}
pub(super) fn luminance(c: V3) -> f32 {
    0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2]
}

/// Rotation by yaw, then pitch, then roll (degrees): positive yaw turns the face to the image's right,
/// positive pitch raises it, positive roll tips it clockwise in the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation(pub [V3; 3]);

impl Rotation {
    pub(super) fn new(yaw: f32, pitch: f32, roll: f32) -> Self {
        let r = std::f32::consts::PI / 180.0;
        let (sy, cy) = (libm::sinf(yaw * r), libm::cosf(yaw * r));
        let (sp, cp) = (libm::sinf(-pitch * r), libm::cosf(pitch * r));
        let (sr, cr) = (libm::sinf(-roll * r), libm::cosf(roll * r));
        let yaw = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
        let pitch = [[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]];
        let roll = [[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]];
        Self(product(roll, product(pitch, yaw)))
    }

    pub(super) fn apply(&self, p: V3) -> V3 {
        [dot(self.0[0], p), dot(self.0[1], p), dot(self.0[2], p)]
    }

    pub(super) fn inverse(&self, p: V3) -> V3 {
        let m = &self.0;
        add(add(scale(m[0], p[0]), scale(m[1], p[1])), scale(m[2], p[2]))
    }
}

fn product(a: [V3; 3], b: [V3; 3]) -> [V3; 3] {
    a.map(|row| {
        [
            row[0] * b[0][0] + row[1] * b[1][0] + row[2] * b[2][0],
            row[0] * b[0][1] + row[1] * b[1][1] + row[2] * b[2][1],
            row[0] * b[0][2] + row[1] * b[1][2] + row[2] * b[2][2],
        ]
    })
}

/// What a surface is made of; decides its shading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Material {
    /// Nothing: the background shows.
    None = 0,
    /// Head and ears; painted in head coordinates.
    Skin,
    Neck,
    Hair,
    Cloth,
    Frame,
    Lens,
    Hat,
    Scarf,
    /// A thing in a picture without people.
    Prop,
}

/// Triangles of one material.
#[derive(Debug, Clone)]
pub(super) struct Mesh {
    pub material: Material,
    /// Index into the palette of props; unused otherwise.
    pub tint: u8,
    pub positions: Vec<V3>,
    pub normals: Vec<V3>,
    /// What the shader sees as the surface coordinate: the position unless a part says otherwise.
    pub coordinates: Vec<V3>,
    pub triangles: Vec<[u32; 3]>,
    pub two_sided: bool,
}

impl Mesh {
    /// A grid of `rows × columns` points; with `closed`, the last column joins the first.
    pub(super) fn grid(
        material: Material,
        rows: usize,
        columns: usize,
        closed: bool,
        mut point: impl FnMut(usize, usize) -> V3,
    ) -> Self {
        let mut positions = Vec::with_capacity(rows * columns);
        for i in 0..rows {
            for j in 0..columns {
                positions.push(point(i, j));
            }
        }
        let wrap = if closed { columns } else { columns - 1 };
        let mut triangles = Vec::with_capacity(2 * (rows - 1) * wrap);
        for i in 0..rows - 1 {
            for j in 0..wrap {
                let k = (j + 1) % columns;
                let (a, b) = ((i * columns + j) as u32, (i * columns + k) as u32);
                let (c, d) = (a + columns as u32, b + columns as u32);
                triangles.push([a, c, b]);
                triangles.push([b, c, d]);
            }
        }
        let normals = smooth_normals(&positions, &triangles);
        let coordinates = positions.clone();
        Self { material, tint: 0, positions, normals, coordinates, triangles, two_sided: false }
    }

    /// An ellipsoid with half-axes `radii` around `centre`; `shape` may move each point of the unit sphere first.
    pub(super) fn ellipsoid(
        material: Material,
        (rows, columns): (usize, usize),
        centre: V3,
        radii: V3,
        shape: impl Fn(V3) -> V3,
    ) -> Self {
        let pi = std::f32::consts::PI;
        Self::grid(material, rows, columns, true, |i, j| {
            let polar = pi * i as f32 / (rows - 1) as f32;
            let around = 2.0 * pi * j as f32 / columns as f32;
            let s = libm::sinf(polar);
            let p = [s * libm::sinf(around), libm::cosf(polar), s * libm::cosf(around)];
            add(centre, mul(shape(p), radii))
        })
    }

    /// A tube of `radius(i)` around the points of `path`.
    pub(super) fn tube(
        material: Material,
        path: &[V3],
        sides: usize,
        closed: bool,
        radius: impl Fn(usize) -> f32,
    ) -> Self {
        let n = path.len();
        let rows = if closed { n + 1 } else { n };
        let mut side = [0.0, 0.0, 0.0];
        Self::grid(material, rows, sides, true, |i, j| {
            let at = |k: usize| path[if closed { k % n } else { k.min(n - 1) }];
            let here = i % n;
            if j == 0 {
                let before = if closed { at(here + n - 1) } else { path[here.saturating_sub(1)] };
                let along = unit(sub(at(here + 1), before));
                let reference = if dot(side, side) > 0.5 && i != 0 {
                    side
                } else if along[2].abs() < 0.8 {
                    [0.0, 0.0, 1.0]
                } else {
                    [1.0, 0.0, 0.0]
                };
                side = unit(sub(reference, scale(along, dot(reference, along))));
            }
            let before = if closed { at(here + n - 1) } else { path[here.saturating_sub(1)] };
            let along = unit(sub(at(here + 1), before));
            let other = cross(along, side);
            let angle = -2.0 * std::f32::consts::PI * j as f32 / sides as f32;
            let r = radius(here);
            add(path[here], add(scale(side, r * libm::cosf(angle)), scale(other, r * libm::sinf(angle))))
        })
    }

    /// A box with half-axes `half` around `centre`, with slightly rounded normals.
    pub(super) fn cuboid(material: Material, centre: V3, half: V3) -> Self {
        let mut mesh = Self {
            material,
            tint: 0,
            positions: Vec::new(),
            normals: Vec::new(),
            coordinates: Vec::new(),
            triangles: Vec::new(),
            two_sided: true,
        };
        for axis in 0..3 {
            for sign in [-1.0, 1.0] {
                let start = mesh.positions.len() as u32;
                for (a, b) in [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)] {
                    let mut p = [0.0; 3];
                    p[axis] = sign * half[axis];
                    p[(axis + 1) % 3] = a * half[(axis + 1) % 3];
                    p[(axis + 2) % 3] = b * half[(axis + 2) % 3];
                    let mut n = [0.0; 3];
                    n[axis] = sign;
                    mesh.positions.push(add(centre, p));
                    mesh.normals.push(n);
                }
                mesh.triangles.push([start, start + 1, start + 2]);
                mesh.triangles.push([start, start + 2, start + 3]);
            }
        }
        mesh.coordinates = mesh.positions.clone();
        mesh
    }

    pub(super) fn tinted(mut self, tint: u8) -> Self {
        self.tint = tint;
        self
    }

    pub(super) fn two_sided(mut self) -> Self {
        self.two_sided = true;
        self
    }
}

pub(super) fn smooth_normals(positions: &[V3], triangles: &[[u32; 3]]) -> Vec<V3> {
    let mut normals = vec![[0.0; 3]; positions.len()];
    for t in triangles {
        let [a, b, c] = t.map(|i| positions[i as usize]);
        let n = cross(sub(b, a), sub(c, a));
        for i in t {
            let m = &mut normals[*i as usize];
            *m = add(*m, n);
        }
    }
    normals.iter_mut().for_each(|n| *n = unit(*n));
    normals
}

/// Catmull-Rom through `stations` at `t` in [0, stations − 1].
pub(super) fn spline<const N: usize>(stations: &[[f32; N]], t: f32) -> [f32; N] {
    let last = stations.len() - 1;
    let i = (t.max(0.0) as usize).min(last - 1);
    let u = (t - i as f32).clamp(0.0, 1.0);
    let p0 = stations[i.saturating_sub(1)];
    let (p1, p2) = (stations[i], stations[i + 1]);
    let p3 = stations[(i + 2).min(last)];
    let mut out = [0.0; N];
    for k in 0..N {
        let (a, b, c, d) = (p0[k], p1[k], p2[k], p3[k]);
        out[k] = b + 0.5 * u * (c - a + u * (2.0 * a - 5.0 * b + 4.0 * c - d + u * (3.0 * (b - c) + d - a)));
    }
    out
}
