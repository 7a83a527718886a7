//! Properties of the renderer.

use super::*;

fn one(style: Style) -> SceneOptions {
    SceneOptions {
        people: [0.0, 1.0, 0.0, 0.0],
        non_human_fraction: 0.0,
        styles: vec![style],
        ..SceneOptions::default()
    }
}

/// A person facing the viewer in even light, without the accidents of hats and scarves.
fn plain(n: u64) -> Scene {
    let mut scene = Scene::photo_of(Identity::from_pool(IdentitySplit::HeldOut, n), 3);
    let person = &mut scene.people[0];
    (person.yaw, person.pitch, person.roll) = (0.0, 0.0, 0.0);
    person.position = [0.5, 0.48];
    scene
}

fn distance(a: &image::RgbImage, b: &image::RgbImage) -> f32 {
    let sum: u32 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    sum as f32 / a.as_raw().len() as f32
}

#[test]
fn the_same_seed_gives_the_same_pixels_and_words() {
    for index in 0..12 {
        let options = SceneOptions { people: [0.2, 0.4, 0.2, 0.2], ..SceneOptions::default() };
        let a = render(&Scene::random(5, index, &options), 64);
        let b = render(&Scene::random(5, index, &options), 64);
        assert_eq!(a.image, b.image, "picture {index}");
        assert_eq!(a.caption, b.caption);
        let c = render(&Scene::random(6, index, &options), 64);
        assert_ne!(a.image, c.image);
    }
}

#[test]
fn identities_look_different_and_only_they_change() {
    let pictures: Vec<_> = (0..8)
        .map(|n| {
            let mut scene = plain(n);
            // Same clothes and scale, so that only the head differs.
            let reference = plain(0).people[0].clone();
            scene.people[0] = Person { identity: scene.people[0].identity.clone(), ..reference };
            render(&scene, 64).image
        })
        .collect();
    for i in 0..pictures.len() {
        for j in 0..i {
            let d = distance(&pictures[i], &pictures[j]);
            assert!(d > 2.0, "people {i} and {j} differ by {d} only");
        }
    }
}

#[test]
fn every_style_draws_the_scene_its_own_way() {
    let mut scene = plain(4);
    let pictures: Vec<_> = Style::ALL
        .iter()
        .map(|style| {
            scene.style = *style;
            render(&scene, 96).image
        })
        .collect();
    for i in 0..pictures.len() {
        for j in 0..i {
            let d = distance(&pictures[i], &pictures[j]);
            assert!(d > 4.0, "{:?} and {:?} differ by {d} only", Style::ALL[i], Style::ALL[j]);
        }
    }
}

#[test]
fn boxes_landmarks_and_masks_agree() {
    let size = 96;
    for index in 0..40 {
        let scene = Scene::random(9, index, &one(Style::Photo));
        let rendered = render(&scene, size);
        let person = &rendered.people[0];
        let [left, top, right, bottom] = person.face_box;
        for [x, y] in person.landmarks {
            assert!((left..=right).contains(&x) && (top..=bottom).contains(&y), "picture {index}");
        }
        let [eye_left, eye_right, nose, mouth_left, mouth_right] = person.landmarks;
        assert!(eye_left[0] < eye_right[0] && mouth_left[0] < mouth_right[0], "picture {index}");
        assert!(nose[1] > eye_left[1].min(eye_right[1]) && mouth_left[1].max(mouth_right[1]) > nose[1]);
        let whole = person.mask.pixels().filter(|p| p.0[0] > 127).count();
        let face = person.face_mask.pixels().filter(|p| p.0[0] > 127).count();
        assert!(whole > 600 && face > 200 && face < whole, "picture {index}: {face} of {whole}");
        for (mask, face) in person.mask.pixels().zip(person.face_mask.pixels()) {
            assert!(face.0[0] == 0 || mask.0[0] > 0, "the face is part of the person");
        }
        assert!(person.visible > 0.5, "picture {index}: {}", person.visible);
    }
}

#[test]
fn instance_masks_do_not_overlap_and_each_holds_its_own_face() {
    let options =
        SceneOptions { people: [0.0, 0.0, 1.0, 1.0], non_human_fraction: 0.0, ..SceneOptions::default() };
    for index in 0..12 {
        let rendered = render(&Scene::random(4, index, &options), 96);
        assert!(rendered.people.len() >= 2);
        for y in 0..96 {
            for x in 0..96 {
                let total: u32 = rendered.people.iter().map(|p| u32::from(p.mask.get_pixel(x, y).0[0])).sum();
                assert!(total <= 255, "picture {index} at {x}, {y}: {total}");
            }
        }
        for person in &rendered.people {
            assert!(person.face_mask.pixels().any(|p| p.0[0] > 0), "picture {index}");
        }
    }
}

#[test]
fn turning_the_head_moves_the_nose_that_way() {
    let nose = |yaw: f32, pitch: f32| {
        let mut scene = plain(1);
        (scene.people[0].yaw, scene.people[0].pitch) = (yaw, pitch);
        let person = &render(&scene, 128).people[0];
        let centre = 0.5 * (person.face_box[0] + person.face_box[2]);
        (person.landmarks[2][0] - centre, person.landmarks[2][1])
    };
    let (right, ahead, left) = (nose(35.0, 0.0), nose(0.0, 0.0), nose(-35.0, 0.0));
    assert!(right.0 > ahead.0 + 4.0 && left.0 < ahead.0 - 4.0, "{right:?} {ahead:?} {left:?}");
    assert!((right.0 + left.0).abs() < 1.5, "mirrored yaw mirrors the nose");
    assert!(nose(0.0, 15.0).1 < nose(0.0, -15.0).1 - 3.0, "looking up raises the nose");
}

#[test]
fn pools_do_not_meet() {
    let first = |split| (0..300).map(|n| Identity::from_pool(split, n)).collect::<Vec<_>>();
    let pools = [IdentitySplit::Train, IdentitySplit::HeldOut, IdentitySplit::EvalEncoder].map(first);
    for i in 0..3 {
        for j in 0..i {
            assert!(pools[i].iter().all(|a| !pools[j].contains(a)));
        }
    }
    assert_eq!(
        Identity::from_pool(IdentitySplit::Train, 1_000_000),
        Identity::from_pool(IdentitySplit::Train, 0),
        "an index past the end wraps inside its own pool"
    );
}

#[test]
fn mixing_runs_from_one_person_to_the_other() {
    let (a, b) = (Identity::from_pool(IdentitySplit::Train, 1), Identity::from_pool(IdentitySplit::Train, 2));
    assert_eq!(a.mix(&b, 0.0), a);
    assert_eq!(a.to_vec().len(), Identity::LEN);
    let half = a.mix(&b, 0.5);
    assert!((half.skin_tone - 0.5 * (a.skin_tone + b.skin_tone)).abs() < 1e-6);
    assert!(a.to_vec().iter().chain(&half.to_vec()).all(|v| (0.0..=1.0).contains(v)));
}

#[test]
fn captions_name_what_is_there_and_vary() {
    let mut scene = plain(2);
    scene.people[0].identity.hair_style = HairStyle::Afro;
    scene.people[0].identity.hair_color = HairColor::Purple;
    scene.style = Style::Oil;
    let captions: Vec<String> = (0..60).map(|i| caption(&scene, &mut Rng::new(i, 0))).collect();
    assert!(captions.iter().any(|c| c.contains("purple afro") || c.contains("violet afro")));
    assert!(captions.iter().all(|c| c.contains("oil")), "the style is always named");
    let different: std::collections::BTreeSet<&String> = captions.iter().collect();
    assert!(different.len() > 25, "{} different captions of 60", different.len());
}

#[test]
fn captions_of_hidden_heads_leave_them_out() {
    let mut scene = plain(2);
    let person = &mut scene.people[0];
    (person.identity.hair_style, person.identity.hair_color) = (HairStyle::Afro, HairColor::Purple);
    (person.identity.glasses, person.identity.beard) = (Some(Glasses::Round), Beard::Full);
    let named = ["afro", "glasses", "beard"];
    let names = |text: &String| named.iter().any(|word| text.contains(word));
    let whole: Vec<String> = (0..60).map(|i| caption(&scene, &mut Rng::new(i, 0))).collect();
    let hidden: Vec<String> = (0..60).map(|i| caption_without_heads(&scene, &mut Rng::new(i, 0))).collect();
    assert!(whole.iter().filter(|text| names(text)).count() > 50);
    assert!(!hidden.iter().any(names), "{hidden:?}");
    let clothes = scene.people[0].clothing.color.name;
    assert!(hidden.iter().filter(|text| text.contains(clothes)).count() > 30);
}

#[test]
fn wrong_captions_are_wrong_in_one_thing() {
    let mut scene = plain(2);
    let person = &mut scene.people[0];
    (person.identity.hair_style, person.identity.hair_color) = (HairStyle::Afro, HairColor::Black);
    (person.identity.glasses, person.hat, person.scarf) = (None, None, None);
    scene.people[0].clothing.kind = ClothingKind::Hoodie;
    (scene.background, scene.style) = (Background::Forest, Style::Oil);
    let color = scene.people[0].clothing.color.name;
    let (mut hair, mut glasses, mut clothes, mut styles) = (0, 0, 0, 0);
    for i in 0..200 {
        let rng = Rng::new(i, 0);
        let right = caption(&scene, &mut rng.clone());
        let wrong = wrong_caption(&scene, caption, &rng, &mut Rng::new(i, 1));
        assert_ne!(right, wrong);
        let of_hair = wrong.contains("afro") && !wrong.contains("black afro");
        let of_glasses = wrong.contains("glasses");
        let of_clothes = wrong.contains("hoodie") && !wrong.contains(color);
        let of_style = !wrong.contains("oil");
        let things = [of_hair, of_glasses, of_clothes, of_style];
        assert_eq!(things.iter().filter(|wrong| **wrong).count(), 1, "{right} | {wrong}");
        (hair, glasses) = (hair + u32::from(of_hair), glasses + u32::from(of_glasses));
        (clothes, styles) = (clothes + u32::from(of_clothes), styles + u32::from(of_style));

        let hidden = wrong_caption(&scene, caption_without_heads, &rng, &mut Rng::new(i, 1));
        assert!(!hidden.contains("afro") && !hidden.contains("glasses"), "{hidden}");
        let wrong = !hidden.contains("oil") || hidden.contains("hoodie") && !hidden.contains(color);
        assert!(wrong, "{hidden}");

        // A colour that nobody sees is no way to be wrong.
        let mut bald = scene.clone();
        bald.people[0].identity.hair_style = HairStyle::Bald;
        let wrong = wrong_caption(&bald, caption, &rng, &mut Rng::new(i, 1));
        let things = [
            !wrong.contains("oil"),
            wrong.contains("glasses"),
            wrong.contains("hoodie") && !wrong.contains(color),
        ];
        assert_eq!(things.iter().filter(|wrong| **wrong).count(), 1, "{wrong}");
    }
    assert!([hair, glasses, clothes, styles].iter().all(|n| *n > 10), "{hair} {glasses} {clothes} {styles}");
}

#[test]
fn animals_are_individuals_in_the_place_of_people() {
    let options =
        SceneOptions { people: [0.0, 0.3, 0.3, 0.4], non_human_fraction: 0.0, ..SceneOptions::default() };
    let animals = SceneOptions { creatures: true, ..options.clone() };
    let mut kinds = std::collections::BTreeSet::new();
    for index in 0..24 {
        let (people, scene) = (Scene::random(4, index, &options), Scene::random(4, index, &animals));
        assert!(people.people.iter().all(|person| person.creature.is_none()));
        for (person, animal) in people.people.iter().zip(&scene.people) {
            let creature = animal.creature.as_ref().unwrap();
            kinds.insert(creature.species.name());
            assert_eq!(
                (person.yaw, person.clothing, person.scale),
                (animal.yaw, animal.clothing, animal.scale)
            );
            assert_eq!(
                (animal.identity.beard, animal.identity.glasses, animal.hat),
                (Beard::None, None, None)
            );
        }
        let rendered = render(&scene, 64);
        let named = scene
            .people
            .iter()
            .all(|animal| rendered.caption.contains(animal.creature.as_ref().unwrap().species.name()));
        assert!(
            named && !rendered.caption.contains("man") && !rendered.caption.contains("hair"),
            "{}",
            rendered.caption
        );
        assert_ne!(rendered.image, render(&people, 64).image);
        for (animal, seen) in scene.people.iter().zip(&rendered.people) {
            let [left, top, right, bottom] = seen.face_box;
            let inside = |[x, y]: &[f32; 2]| *x >= left && *x <= right && *y >= top && *y <= bottom;
            assert!(seen.landmarks.iter().all(inside), "{:?}", animal.creature);
        }
    }
    assert_eq!(kinds.len(), Species::ALL.len());
    // A hidden head does not say what kind it is of: nor does its caption.
    let scene = Scene::random(4, 0, &animals);
    let hidden: Vec<String> = (0..30).map(|i| caption_without_heads(&scene, &mut Rng::new(i, 0))).collect();
    assert!(!hidden.iter().any(|text| kinds.iter().any(|kind| text.contains(kind))), "{hidden:?}");
    let of = |split, n| Creature::from_pool(split, n);
    assert_eq!(of(IdentitySplit::HeldOut, 5), of(IdentitySplit::HeldOut, 5));
    assert_ne!(of(IdentitySplit::HeldOut, 5), of(IdentitySplit::HeldOut, 6));
    assert_ne!(of(IdentitySplit::HeldOut, 5), of(IdentitySplit::Train, 5));
}

#[test]
fn pictures_without_people_have_none() {
    let options = SceneOptions { non_human_fraction: 1.0, ..SceneOptions::default() };
    for index in 0..16 {
        let rendered = render(&Scene::random(2, index, &options), 48);
        assert!(rendered.people.is_empty());
        assert!(!rendered.caption.contains("man"), "{}", rendered.caption);
    }
}

#[test]
fn sheets_and_records_hold_what_was_drawn() {
    let scene = plain(3);
    let rendered = render(&scene, 32);
    let line = dataset::record(&scene, &rendered, "0.png", &["0_mask.png".into()]);
    assert_eq!(line["people"][0]["mask"], "0_mask.png");
    assert_eq!(line["people"][0]["identity"].as_array().unwrap().len(), Identity::LEN);
    let pictures = vec![rendered.image.clone(); 5];
    let sheet = dataset::sheet(&pictures, 3);
    assert_eq!(sheet.dimensions(), (96, 64));
    assert_eq!(sheet.get_pixel(40, 40), rendered.image.get_pixel(8, 8));
}
