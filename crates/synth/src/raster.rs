//! The z-buffered rasteriser: meshes to a grid of surface samples.

use super::geometry::{Material, Mesh, Rotation, V3, add, dot, scale};

/// Distance of the camera from a head's centre, in half head heights.
pub(super) const DISTANCE: f32 = 7.5;

/// What is seen at one sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Towards the viewer is larger; −∞ where nothing was drawn.
    pub depth: f32,
    pub normal: V3,
    pub coordinate: V3,
    pub material: Material,
    pub tint: u8,
    /// Index of the person, or 255.
    pub person: u8,
}

impl Sample {
    pub(super) const EMPTY: Self = Self {
        depth: f32::NEG_INFINITY,
        normal: [0.0, 0.0, 1.0],
        coordinate: [0.0; 3],
        material: Material::None,
        tint: 0,
        person: 255,
    };
}

/// A square grid of samples.
#[derive(Debug)]
pub(super) struct Buffer {
    pub size: usize,
    pub samples: Vec<Sample>,
}

/// Where a part of a person (or a prop) stands, and how it is seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub rotation: Rotation,
    /// Offset after the rotation, in model units.
    pub offset: V3,
    /// Centre of projection in the picture, in [0, 1].
    pub position: [f32; 2],
    /// Model height 2 covers this fraction of the picture at depth 0.
    pub scale: f32,
    /// Added to the depth, so that people stand before each other.
    pub depth: f32,
    pub person: u8,
}

impl Placement {
    /// Point in the picture (x, y in [0, 1]) and depth.
    pub(super) fn project(&self, p: V3) -> V3 {
        let q = add(self.rotation.apply(p), self.offset);
        let f = 0.5 * self.scale * DISTANCE / (DISTANCE - q[2]).max(0.5);
        [self.position[0] + f * q[0], self.position[1] - f * q[1], q[2] + self.depth]
    }

    /// The camera's place in model coordinates.
    pub(super) fn camera(&self) -> V3 {
        self.rotation.inverse([-self.offset[0], -self.offset[1], DISTANCE - self.offset[2]])
    }
}

impl Buffer {
    pub(super) fn new(size: usize) -> Self {
        Self { size, samples: vec![Sample::EMPTY; size * size] }
    }

    pub(super) fn draw(&mut self, mesh: &Mesh, placement: &Placement) {
        let size = self.size as f32;
        let screen: Vec<V3> = mesh
            .positions
            .iter()
            .map(|p| {
                let [x, y, z] = placement.project(*p);
                [x * size - 0.5, y * size - 0.5, z]
            })
            .collect();
        let normals: Vec<V3> = mesh.normals.iter().map(|n| placement.rotation.apply(*n)).collect();
        for t in &mesh.triangles {
            let i = t.map(|i| i as usize);
            let (a, b, c) = (screen[i[0]], screen[i[1]], screen[i[2]]);
            let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            // y points down on screen, so a front face has negative area.
            let front = area < 0.0;
            if area.abs() < 1e-6 || (!front && !mesh.two_sided) {
                continue;
            }
            let x0 = a[0].min(b[0]).min(c[0]).ceil().max(0.0) as usize;
            let y0 = a[1].min(b[1]).min(c[1]).ceil().max(0.0) as usize;
            let x1 = a[0].max(b[0]).max(c[0]).floor().min(size - 1.0);
            let y1 = a[1].max(b[1]).max(c[1]).floor().min(size - 1.0);
            if x1 < x0 as f32 || y1 < y0 as f32 {
                continue;
            }
            let inverse = 1.0 / area;
            let (n, m) = (i.map(|k| normals[k]), i.map(|k| mesh.coordinates[k]));
            for y in y0..=y1 as usize {
                for x in x0..=x1 as usize {
                    let (px, py) = (x as f32, y as f32);
                    let u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) * inverse;
                    let v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) * inverse;
                    let w = 1.0 - u - v;
                    if u < 0.0 || v < 0.0 || w < 0.0 {
                        continue;
                    }
                    let depth = u * a[2] + v * b[2] + w * c[2];
                    let sample = &mut self.samples[y * self.size + x];
                    if depth <= sample.depth {
                        continue;
                    }
                    let mut normal = add(add(scale(n[0], u), scale(n[1], v)), scale(n[2], w));
                    let length = dot(normal, normal).max(1e-9).sqrt();
                    let facing = if mesh.two_sided && normal[2] < 0.0 { -1.0 } else { 1.0 };
                    normal = scale(normal, facing / length);
                    *sample = Sample {
                        depth,
                        normal,
                        coordinate: add(add(scale(m[0], u), scale(m[1], v)), scale(m[2], w)),
                        material: mesh.material,
                        tint: mesh.tint,
                        person: placement.person,
                    };
                }
            }
        }
    }
}
