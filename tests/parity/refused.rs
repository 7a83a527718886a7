//! What could not be drawn with is refused by `convert`, by name and before anything is written.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use facestudio::Result;
use facestudio::encoders::text::TextConfig;
use facestudio::encoders::vision::VisionConfig;
use facestudio::nn::Activation;
use facestudio::sampling::Sampler;
use facestudio::weights::{Component, Files, MemoryFiles};
use facestudio_convert::scheduler::Sampling;
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use serde_json::{Value, json};

use crate::fixture;

/// Converts; a refusal must come before the first tensor, and leave nothing.
fn run(plan: &Plan, out: &Path) -> Result<Vec<ComponentReport>> {
    let written = Cell::new(0);
    let result = convert(plan, out, &AtomicBool::new(false), &|_, _| written.set(written.get() + 1));
    if result.is_err() {
        assert_eq!((written.get(), out.exists()), (0, false));
    }
    result
}

/// A folder in diffusers' layout, made of a single file, with a tokenizer.
fn base() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base");
    let file = fixture("convert").0.join("sd1.ckpt");
    run(&Plan { base: Some(file), ..Plan::default() }, &path).unwrap();
    // diffusers knows none, and the tests change the folder.
    std::fs::remove_file(path.join("manifest.json")).unwrap();
    std::fs::create_dir(path.join("tokenizer")).unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(fixture("tokenizer/plain").0.join(name), path.join("tokenizer").join(name)).unwrap();
    }
    folder
}

#[test]
fn schedulers_are_read_or_refused_before_anything_is_written() {
    let folder = base();
    let at = |name: &str| folder.path().join(name);
    let with = |scheduler: &Value, sampler| {
        std::fs::write(at("base/scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
        let sampling = Sampling { sampler, ..Sampling::default() };
        let result = run(&Plan { base: Some(at("base")), sampling, ..Plan::default() }, &at("out"));
        let _ = std::fs::remove_dir_all(at("out"));
        result
    };
    let class =
        |name: &str| json!({ "_class_name": format!("{name}Scheduler"), "beta_schedule": "scaled_linear" });
    for name in [
        "DEISMultistep",
        "DPMSolverSinglestep",
        "DPMSolverSDE",
        "SASolver",
        "UniPCMultistep",
        "HeunDiscrete",
        "LMSDiscrete",
        "KDPM2Discrete",
        "KDPM2AncestralDiscrete",
        "PNDM",
        "DDPM",
        "DDIM",
        "DDIMParallel",
        "LCM",
        "TCD",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "DPMSolverMultistep",
    ] {
        with(&class(name), None).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    // As diffusers writes what it was not told.
    let mut config = class("DEISMultistep");
    for (name, value) in
        [("algorithm_type", "deis"), ("solver_type", "logrho"), ("prediction_type", "epsilon")]
    {
        config[name] = value.into();
    }
    with(&config, Some(Sampler::Dpmpp2m)).unwrap();
    for name in [
        "EDMEuler",
        "EDMDPMSolverMultistep",
        "FlowMatchEulerDiscrete",
        "IPNDM",
        "UnCLIP",
        "CMStochasticIterative",
    ] {
        for sampler in [None, Some(Sampler::Euler)] {
            let error = with(&class(name), sampler).unwrap_err();
            assert_eq!(error.code, "config-unsupported", "{name}: {error}");
            assert!(error.message.contains(name), "{error}");
            // Another sampler does not help there, so that it is not named.
            assert!(!error.remedy.contains("--sampler") && error.remedy.contains("DDIMScheduler"), "{error}");
        }
    }
    for (class, name, value) in [
        ("DPMSolverMultistepScheduler", "algorithm_type", json!("sde-dpmsolver++")),
        ("DPMSolverMultistepScheduler", "solver_order", json!(3)),
        ("DPMSolverMultistepScheduler", "use_flow_sigmas", json!(true)),
        ("DDIMScheduler", "thresholding", json!(true)),
        ("EulerDiscreteScheduler", "use_beta_sigmas", json!(true)),
        ("EulerDiscreteScheduler", "timestep_type", json!("continuous")),
        ("HeunDiscreteScheduler", "use_exponential_sigmas", json!(true)),
        ("UniPCMultistepScheduler", "predict_x0", json!(false)),
        ("UniPCMultistepScheduler", "solver_type", json!("bh1")),
    ] {
        let error = with(&json!({ "_class_name": class, name: value }), None).unwrap_err();
        assert_eq!(error.code, "config-unsupported", "{error}");
        assert!(error.message.contains(name), "{error}");
        // What is offered works.
        let named = error.remedy.split_once("--sampler ").map(|(_, named)| named);
        assert_eq!(named.is_none(), name == "use_flow_sigmas", "{error}");
        for other in named.into_iter().flat_map(|named| named.split(" or ")) {
            let sampler: Sampler = other.replace('-', "_").parse().unwrap();
            with(&json!({ "_class_name": class, name: value }), Some(sampler)).unwrap();
        }
    }
    let sde = json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++" });
    with(&sde, Some(Sampler::Euler)).unwrap();
    assert_eq!(with(&json!({ "prediction_type": "flow_prediction" }), None).unwrap_err().code, "config");
}

#[test]
fn networks_that_are_not_built_in_are_refused_before_anything_is_written() {
    let folder = base();
    let at = |name: &str| folder.path().join(name);
    for (component, name, value, code) in [
        ("unet", "class_embed_type", json!("timestep"), "checkpoint-layout"),
        ("unet", "time_cond_proj_dim", json!(256), "checkpoint-layout"),
        ("unet", "resnet_time_scale_shift", json!("scale_shift"), "config-unsupported"),
        ("unet", "addition_embed_type", json!("text_time"), "checkpoint-layout"),
        ("unet", "in_channels", json!(9), "checkpoint-layout"),
        ("unet", "act_fn", json!("mish"), "config"),
        ("vae", "_class_name", json!("AsymmetricAutoencoderKL"), "config-unsupported"),
        (
            "vae",
            "down_block_types",
            json!(["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
            "config-unsupported",
        ),
        ("vae", "act_fn", json!("mish"), "config"),
        ("text_encoder", "model_type", json!("siglip_text_model"), "config-unsupported"),
        ("text_encoder", "hidden_act", json!("gelu_new"), "config"),
    ] {
        let file = at("base").join(component).join("config.json");
        let before = std::fs::read(&file).unwrap();
        let mut config: Value = serde_json::from_slice(&before).unwrap();
        config[name] = value.clone();
        std::fs::write(&file, config.to_string()).unwrap();
        let error = run(&Plan { base: Some(at("base")), ..Plan::default() }, &at("out")).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        let said = value.as_str().or(value[0].as_str()).map_or_else(|| value.to_string(), str::to_owned);
        assert!(error.message.contains(&said), "{said}: {error}");
        std::fs::write(&file, before).unwrap();
    }
    run(&Plan { base: Some(at("base")), ..Plan::default() }, &at("out")).unwrap();
    // A prior that does not say how it draws.
    let parts = vec![(Slot::Prior, fixture("prior/karlo").0)];
    assert!(!fixture("prior/karlo").list("").unwrap().iter().any(|name| name == "scheduler_config.json"));
    let error = run(&Plan { parts, ..Plan::default() }, &at("prior")).unwrap_err();
    assert_eq!(error.code, "convert-config");
    assert!(error.message.contains("scheduler_config.json"), "{error}");
}

#[test]
fn of_an_old_clips_two_configs_the_second_counts() {
    let with =
        |config: Value| MemoryFiles([("config.json".to_owned(), config.to_string().into_bytes())].into());
    let (first, second) =
        (json!({ "hidden_act": "quick_gelu" }), json!({ "hidden_act": "gelu", "hidden_size": 64 }));
    let whole = json!({
        "model_type": "clip", "projection_dim": 24, "text_config": first, "text_config_dict": second,
        "vision_config": first, "vision_config_dict": second,
    });
    let files = with(whole.clone());
    let text = TextConfig::read(&Component::new(&files, "")).unwrap();
    assert_eq!((text.hidden_act, text.hidden_size, text.projection_dim), (Activation::Gelu, 64, 24));
    let VisionConfig::Vit(vision) = VisionConfig::read(&Component::new(&files, "")).unwrap() else {
        panic!("another architecture");
    };
    assert_eq!((vision.hidden_act, vision.hidden_size, vision.projection_dim), (Activation::Gelu, 64, 24));
    let mut alone = whole;
    alone["text_config_dict"] = Value::Null;
    let text = TextConfig::read(&Component::new(&with(alone.clone()), "")).unwrap();
    assert_eq!((text.hidden_act, text.hidden_size), (Activation::QuickGelu, 512));
    alone["model_type"] = "siglip".into();
    let files = with(alone);
    let component = Component::new(&files, "");
    for error in [TextConfig::read(&component).unwrap_err(), VisionConfig::read(&component).unwrap_err()] {
        assert_eq!(error.code, "config-unsupported");
        assert!(error.message.contains("'siglip'"), "{error}");
    }
}
