//! The rates of `docs/watermark.md` on a small sample; `facestudio watermark rates` measures them on a large one.

use facestudio_lab::eval::{WatermarkOptions, watermark};

#[test]
fn marks_survive_what_happens_to_pictures_and_are_found_nowhere_else() {
    let options = WatermarkOptions { size: 128, marked: 4, unmarked: 11, seed: 1 };
    let report = watermark(&options, || {}).unwrap();
    assert!(report.psnr_least >= 38.0, "{} dB", report.psnr_least);
    // At least 95 % are found after each attack: of four, one may be lost.
    for scores in &report.marked {
        assert!(scores.reached[1] >= 3, "{scores:?}");
    }
    let unmarked: usize = report.unmarked.iter().map(|scores| scores.pictures).sum();
    assert_eq!(unmarked, 22);
    for scores in &report.unmarked {
        assert!(scores.greatest < 4.0, "{scores:?}");
    }
}

#[test]
fn pictures_that_attacks_make_too_small_are_refused() {
    let options = WatermarkOptions { size: 48, marked: 1, unmarked: 0, seed: 0 };
    let error = watermark(&options, || {}).unwrap_err();
    assert_eq!(error.code, "watermark-size");
    assert!(error.message.contains("50 %") && error.message.contains("24×24"), "{error}");
}
