//! Hair as one swept surface: strands leave the crown, follow the skull, and hang from its widest slice.

use super::geometry::{Material, Mesh, V3, add, bell, lerp, scale, smoothstep, unit};
use super::head::Face;
use super::identity::{HairStyle, Identity};
use super::rng::noise;

/// Azimuths (degrees from the face's front) at which [`Cut::ends`] is given.
const AZIMUTHS: [f32; 9] = [0.0, 25.0, 42.0, 55.0, 68.0, 82.0, 100.0, 130.0, 180.0];
/// Slice from which long hair hangs.
const FALL: f32 = 4.7;
/// Drop per unit of slice below [`FALL`].
const DROP: f32 = 0.27;

/// A hair cut: where strands end and how thick the hair is.
struct Cut {
    /// Slice at which strands end, at each of [`AZIMUTHS`].
    ends: [f32; 9],
    /// Whether hair hangs instead of following the neck.
    hangs: bool,
    top: f32,
    front: f32,
    side: f32,
    /// Amplitude and frequency of curls.
    curl: [f32; 2],
    /// Sideways asymmetry of the fringe.
    sweep: f32,
    /// How ragged the ends are.
    ragged: f32,
}

fn cut(id: &Identity) -> Option<Cut> {
    use HairStyle::*;
    let l = id.hair_length;
    let v = 0.7 + 0.6 * id.hair_volume;
    let line = 2.85 + 0.7 * (0.5 - id.hairline);
    let short = |side: f32| [line, line, line + 0.15, line + 0.55, 4.3 + side, 5.0 + side, 4.75, 6.5, 7.0];
    let base = Cut {
        ends: short(0.0),
        hangs: false,
        top: 0.16 * v,
        front: 0.10 * v,
        side: 0.07,
        curl: [0.012, 4.0],
        sweep: 0.0,
        ragged: 0.08,
    };
    let long = |end: f32, front: f32| {
        [front, front + 0.1, lerp(front, 4.2, 0.55), 5.2, lerp(5.0, end, 0.8), end, end, end, end]
    };
    let side = if id.hair_part < 0.5 { -1.0 } else { 1.0 };
    Some(match id.hair_style {
        Bald => return None,
        Buzz => Cut { top: 0.035, front: 0.03, side: 0.03, curl: [0.0, 1.0], ragged: 0.0, ..base },
        Short => {
            Cut { ends: short(0.3), top: 0.17 * v, front: 0.14 * v, ragged: 0.3, curl: [0.025, 7.0], ..base }
        }
        SidePart => Cut { top: 0.20 * v, front: 0.16 * v, side: 0.08, sweep: 0.55 * side, ..base },
        Quiff => Cut { top: 0.26 * v, front: 0.34 * v, side: 0.05, ..base },
        Curly => Cut {
            ends: [line + 0.2, line + 0.2, line + 0.4, line + 0.9, 4.8, 5.8, 6.0, 7.0, 7.6],
            top: 0.26 * v,
            front: 0.22 * v,
            side: 0.20 * v,
            curl: [0.11, 7.5],
            ..base
        },
        Afro => Cut {
            ends: [line, line, line + 0.2, line + 0.7, 4.6, 5.6, 6.0, 6.8, 7.2],
            top: 0.50 * v,
            front: 0.40 * v,
            side: 0.46 * v,
            curl: [0.05, 11.0],
            ragged: 0.0,
            ..base
        },
        Bob => Cut {
            ends: long(7.0 + 0.9 * l, line + 0.1),
            hangs: true,
            top: 0.17 * v,
            front: 0.12 * v,
            side: 0.19 * v,
            sweep: 0.35 * side,
            ..base
        },
        BobBangs => Cut {
            ends: [4.35, 4.35, 4.4, 5.0, 6.6 + 0.8 * l, 7.0 + 0.9 * l, 7.1 + l, 7.2 + l, 7.2 + l],
            hangs: true,
            top: 0.17 * v,
            front: 0.14,
            side: 0.19 * v,
            ragged: 0.16,
            ..base
        },
        Long => Cut {
            ends: long(9.6 + 2.2 * l, line),
            hangs: true,
            top: 0.14 * v,
            front: 0.09 * v,
            side: 0.15 * v,
            sweep: 0.25 * side,
            ..base
        },
        LongBangs => Cut {
            ends: [4.3, 4.3, 4.4, 5.2, 9.0, 10.0 + 2.0 * l, 10.2 + 2.0 * l, 10.4 + 2.0 * l, 10.4 + 2.0 * l],
            hangs: true,
            top: 0.15 * v,
            front: 0.14,
            side: 0.15 * v,
            ragged: 0.16,
            ..base
        },
        LongWavy => Cut {
            ends: long(9.4 + 2.0 * l, line + 0.1),
            hangs: true,
            top: 0.20 * v,
            front: 0.14 * v,
            side: 0.26 * v,
            curl: [0.075, 3.2],
            sweep: 0.35 * side,
            ..base
        },
        Ponytail | Bun => Cut { top: 0.08 * v, front: 0.06, side: 0.05, curl: [0.004, 4.0], ..base },
        Pixie => Cut {
            ends: [line + 0.7, line + 0.8, line + 0.9, 4.3, 5.4, 5.9, 5.6, 6.6, 7.0],
            top: 0.19 * v,
            front: 0.15 * v,
            side: 0.12,
            sweep: 0.7 * side,
            ragged: 0.35,
            ..base
        },
        Receding => Cut {
            ends: [1.9, 1.5, 1.5, 2.4, 4.2, 4.9, 4.75, 6.5, 7.0],
            top: 0.05,
            front: 0.04,
            side: 0.06,
            ..base
        },
    })
}

impl Cut {
    fn end(&self, degrees: f32) -> f32 {
        let a = degrees.abs();
        let i = AZIMUTHS.iter().rposition(|z| *z <= a).unwrap_or(0).min(AZIMUTHS.len() - 2);
        let t = smoothstep(AZIMUTHS[i], AZIMUTHS[i + 1], a);
        let end = lerp(self.ends[i], self.ends[i + 1], t);
        // A swept fringe is long on one side of the parting and short on the other.
        let fringe = bell(degrees - 22.0 * self.sweep.signum(), 32.0)
            - 0.4 * bell(degrees + 25.0 * self.sweep.signum(), 22.0);
        end + self.sweep.abs() * fringe * 1.3
    }
}

/// The meshes of the hair; their coordinates are azimuth, slice and depth below the surface.
/// Under a hat, hair is kept flat above slice `hat`.
pub(super) fn meshes(face: &Face, id: &Identity, hat: Option<f32>) -> Vec<Mesh> {
    const ROWS: usize = 30;
    const COLUMNS: usize = 96;
    let Some(cut) = cut(id) else { return Vec::new() };
    let seed = (id.hair_part * 9973.0) as u32;
    let pi = std::f32::consts::PI;
    let mut coordinates = Vec::with_capacity(ROWS * COLUMNS);
    let mut mesh = Mesh::grid(Material::Hair, ROWS, COLUMNS, true, |i, j| {
        let turn = 2.0 * j as f32 / COLUMNS as f32 - 1.0;
        let theta = pi * turn;
        let degrees = 180.0 * turn;
        let (sine, cosine) = (libm::sinf(theta), libm::cosf(theta));
        let ragged = cut.ragged * (noise(turn * 22.0, 0.5, seed) - 0.5) * 2.0;
        let end = cut.end(degrees) + ragged;
        let t = i as f32 / (ROWS - 1) as f32;
        let s = end * t;
        let front = smoothstep(0.15, 0.8, cosine);
        let above = smoothstep(4.0, 1.2, s);
        let mut thick = lerp(lerp(cut.side, cut.front, front), cut.top, above * (1.0 - 0.5 * front));
        if id.hair_style == HairStyle::Quiff {
            thick += cut.front * 0.55 * bell(s - 2.2, 0.6) * front;
        }
        // The parting: a groove along one side of the crown.
        let groove = bell(sine * 0.6 + 0.28 * cut.sweep.signum(), 0.05) * smoothstep(0.0, 0.4, cosine);
        thick *= 1.0 - 0.5 * groove * cut.sweep.abs().min(0.5);
        let mut under = 0.0;
        if let Some(brim) = hat {
            under = smoothstep(brim + 0.7, brim - 0.1, s);
            thick = lerp(thick, 0.02, under);
        }
        let curl = (1.0 - under)
            * cut.curl[0]
            * (noise((turn + 1.0) * cut.curl[1] * 3.0 % (cut.curl[1] * 6.0), s * cut.curl[1] * 0.33, seed)
                - 0.35)
            * 1.8;
        let on = s.min(if cut.hangs { FALL } else { 9.0 });
        let p = face.skull(sine, cosine, on);
        // Outwards: radially low down, more and more upwards at the crown.
        let up = smoothstep(3.6, 0.0, on);
        let flat = unit([p[0], 0.0, p[2] + 0.05]);
        let out = unit([flat[0] * (1.0 - up * 0.9), up * 1.25, flat[2] * (1.0 - up * 0.9)]);
        let closing = if cut.hangs && end > FALL + 0.8 {
            1.0
        } else {
            // Meets the skin at the hairline.
            let u = t.powi(5);
            1.0 - 0.8 * u
        };
        let mut q: V3 = add(p, scale(out, (thick + curl) * closing + 0.012));
        if cut.hangs && s > FALL {
            let drop = (s - FALL) * DROP;
            let flare = 0.10 * libm::sinf((drop * 1.6).min(3.0)) * id.hair_volume;
            q[1] -= drop;
            q[0] *= 1.0 + flare * 0.6 - 0.05 * smoothstep(0.6, 0.0, end - s);
            q[2] += flare * flat[2] - 0.04 * drop * front;
            let wave = (0.012 + 0.05 * id.hair_wave * cut.curl[0] * 12.0)
                * libm::sinf(drop * 7.5 + 5.0 * noise(turn * 3.0 + 9.0, 0.0, seed));
            q = add(q, scale(flat, wave));
        }
        coordinates.push([turn * 10.0, s, 1.0 - t]);
        q
    });
    mesh.coordinates = coordinates;
    let mut out = vec![mesh.two_sided()];
    match id.hair_style {
        HairStyle::Bun if hat.is_none() => {
            let r = 0.24 + 0.14 * id.hair_volume;
            let y = 1.02 * (0.9 + 0.2 * id.skull_height) + r * 0.55;
            out.push(locks(Mesh::ellipsoid(
                Material::Hair,
                (14, 20),
                [0.0, y, -0.28],
                [r, r * 0.85, r],
                |p| p,
            )));
        }
        HairStyle::Ponytail | HairStyle::Bun => {
            let side = if id.hair_part < 0.5 { -1.0 } else { 1.0 };
            let length = 0.9 + 1.2 * id.hair_length;
            let path: Vec<V3> = (0..14)
                .map(|k| {
                    let t = k as f32 / 13.0;
                    [
                        side * (0.12 + 0.85 * (t * 1.7).min(1.0).sqrt() * (1.0 - 0.12 * t)),
                        0.62 + 0.34 * libm::sinf((t * 3.4).min(2.2)) - length * t * t - 0.2 * t,
                        -0.85 - 0.35 * libm::sinf((t * 2.6).min(2.6)),
                    ]
                })
                .collect();
            let width = 0.17 + 0.12 * id.hair_volume;
            out.push(locks(Mesh::tube(Material::Hair, &path, 12, false, |i| {
                let t = i as f32 / 13.0;
                width * (0.45 + 0.75 * smoothstep(0.0, 0.3, t)) * (1.0 - 0.85 * smoothstep(0.6, 1.0, t))
            })));
        }
        _ => {}
    }
    out
}

/// Gives a knot or tail of hair strand coordinates.
fn locks(mut mesh: Mesh) -> Mesh {
    mesh.coordinates = mesh.positions.iter().map(|p| [p[0] * 5.0 + p[2] * 5.0, p[1] * 1.3, 0.5]).collect();
    mesh.two_sided()
}
