/// Sinusoids of each position's column and row, row-major, `[height · width][channels]`: half of the channels for either, sines before
/// cosines (diffusers' `get_2d_sincos_pos_embed`). Positions are counted as if the grid had `base` of them in each direction, whatever
/// its size. `channels` is a multiple of 4.
pub(super) fn positions(channels: usize, [height, width]: [usize; 2], base: f64) -> Vec<f32> {
    let quarter = channels / 4;
    // 10000 is the transformer's maximum period.
    let frequencies: Vec<f64> = (0..quarter).map(|i| 10_000f64.powf(-(i as f64) / quarter as f64)).collect();
    let sinusoids = |position: usize, count: usize| {
        // diffusers divides in f32.
        let at = f64::from(position as f32 / (count as f64 / base) as f32);
        let angles: Vec<f64> = frequencies.iter().map(|frequency| at * frequency).collect();
        let sines = angles.iter().map(|angle| angle.sin() as f32);
        sines.chain(angles.iter().map(|angle| angle.cos() as f32)).collect::<Vec<f32>>()
    };
    let mut values = Vec::with_capacity(height * width * channels);
    for row in 0..height {
        for column in 0..width {
            values.extend(sinusoids(column, width));
            values.extend(sinusoids(row, height));
        }
    }
    values
}
