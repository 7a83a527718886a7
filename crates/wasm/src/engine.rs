//! [`Engine`]: one device, one model, one generation at a time.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use burn::tensor::Device;
use js_sys::{Array, Function, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::convert;
use super::failure::Failure;
use super::files::StoredFiles;
use facestudio::error::{Error, Result};
use facestudio::image::codec;
#[cfg(feature = "gpu")]
use facestudio::internal::{
    leave_out, measure_rate, measure_tiles, prove, set_rate, set_tiles, tiles, time_kernel,
};
use facestudio::pipeline::{FaceStudio, Phase, Precision, Progress};

/// A device with a model on it.
///
/// Every method takes `&self`, so that `cancel` can be called while `generate` is awaited.
#[wasm_bindgen]
pub struct Engine {
    device: Device,
    studio: RefCell<Option<Rc<Loaded>>>,
    cancelled: Cell<bool>,
    busy: Cell<bool>,
}

/// Encoders whose files are larger than this are let go of when a picture's guidance is made, and read again one by one when
/// something needs them.
const KEPT_ENCODERS: u64 = 512 << 20;

/// A model, and the files that a large one came from.
struct Loaded {
    studio: FaceStudio,
    files: Option<StoredFiles>,
}

impl Loaded {
    /// Lets go of what the rest of a picture does not need, if it is large.
    fn lighten(&self) {
        if self.files.is_some() {
            self.studio.release_encoders();
        }
    }
}

#[wasm_bindgen]
impl Engine {
    /// Opens a device: `webgpu`, or `cpu` for wasm itself. Rejects with a `Failure`.
    pub async fn open(backend: String) -> Result<Engine, Failure> {
        let device = device(&backend).await?;
        Ok(Self { device, studio: RefCell::new(None), cancelled: Cell::new(false), busy: Cell::new(false) })
    }

    /// Rejects where the device does not compute in a `precision` of [`load`](Self::load).
    pub fn check_precision(&self, precision: &str) -> Result<(), Failure> {
        Ok(precision.parse::<Precision>()?.check(&self.device)?)
    }

    /// Computes small cases with every kernel of WebGPU, and gives the names of those that were wrong, which
    /// [`leave_out`](Self::leave_out) takes; `burn` among them where nothing can be computed on the adapter. None on the CPU.
    pub async fn prove(&self) -> Vec<String> {
        #[cfg(feature = "gpu")]
        return prove(&self.device).await.into_iter().map(str::to_owned).collect();
        #[cfg(not(feature = "gpu"))]
        Vec::new()
    }

    /// Leaves these kernels out from now on, and no others: burn's operations take their place, f32 that of `f16`. Models that are
    /// loaded already keep their weights as they are.
    pub fn leave_out(&self, names: Vec<String>) -> Result<(), Failure> {
        #[cfg(feature = "gpu")]
        if leave_out(&names) {
            return Ok(());
        }
        let message = format!("{names:?} are no kernels of this build");
        Err(Error::device("tiles", message, "measure them again").into())
    }

    /// Measures what [`set_rate`](Self::set_rate) takes; `undefined` on the CPU.
    pub async fn measure_rate(&self) -> Option<f64> {
        #[cfg(feature = "gpu")]
        return measure_rate(&self.device, now).await;
        #[cfg(not(feature = "gpu"))]
        None
    }

    /// Cuts the GPU's long dispatches by this many multiply-adds a millisecond.
    pub fn set_rate(&self, rate: f64) -> Result<(), Failure> {
        #[cfg(feature = "gpu")]
        if set_rate(rate) {
            return Ok(());
        }
        Err(Error::device("tiles", format!("{rate} is no rate of a device"), "measure it again").into())
    }

    /// Milliseconds of a kernel on WebGPU: `linear` of `[tokens, from, to]`, `conv2d` of `[channels in, channels out, side]` or
    /// `attention` of `[heads, tokens, dimensions of a head]`, with numbers of `f32`, `f16`, `q8` or `q4`; `undefined` where there
    /// is none such.
    pub async fn time_kernel(&self, kernel: String, numbers: String, sizes: Vec<u32>) -> Option<f64> {
        #[cfg(feature = "gpu")]
        if let [first, second, third] = sizes[..] {
            let sizes = [first, second, third].map(|size| size as usize);
            return time_kernel(&self.device, &kernel, &numbers, sizes, now).await;
        }
        let _ = (kernel, numbers, sizes);
        None
    }

    /// Measures what [`set_tiles`](Self::set_tiles) takes, in about half a second on a graphics card; `undefined` on the CPU, which has
    /// no tiles.
    pub async fn measure_tiles(&self) -> Option<Vec<u32>> {
        #[cfg(feature = "gpu")]
        if let Some(tiles) = measure_tiles(&self.device, now).await {
            return Some(tiles.map(|border| border as u32).to_vec());
        }
        None
    }

    /// Chooses the tiles of the GPU's products, as [`measure_tiles`](Self::measure_tiles) found them on this adapter.
    pub fn set_tiles(&self, tiles: Vec<u32>) -> Result<(), Failure> {
        #[cfg(feature = "gpu")]
        if let [large, middle] = tiles[..]
            && set_tiles([large as usize, middle as usize])
        {
            return Ok(());
        }
        let message = format!("{tiles:?} were not measured by this build");
        Err(Error::device("tiles", message, "measure them again").into())
    }

    /// What the GPU's products are chosen by: from how many workgroups on each tile but the smallest is used; `undefined` in a
    /// build without WebGPU.
    pub fn tiles(&self) -> Option<Vec<u32>> {
        #[cfg(feature = "gpu")]
        return Some(tiles().map(|border| border as u32).to_vec());
        #[cfg(not(feature = "gpu"))]
        None
    }

    /// Loads the model whose files are `paths` with `sizes`; `read(path, start, end)` gives their bytes at once.
    ///
    /// At most one file is in memory at a time, besides what is already on the device; `read` is kept for large models, and
    /// `lean` ones, whose encoders are let go of while a picture is drawn. `precision` is `auto`, `f16` or `f32`.
    pub fn load(
        &self,
        paths: Vec<String>,
        sizes: Vec<f64>,
        read: Function,
        lean: bool,
        precision: &str,
    ) -> Result<(), Failure> {
        let precision: Precision = precision.parse()?;
        let files = StoredFiles::new(paths, sizes, read);
        let studio = FaceStudio::load(&files, &self.device)?.with_precision(precision)?;
        let large = lean || studio.takes_turns() || studio.encoders_size() > KEPT_ENCODERS;
        self.studio.replace(Some(Rc::new(Loaded { studio, files: large.then_some(files) })));
        Ok(())
    }

    /// Whether the model is small enough to keep its encoders while pictures are drawn; a large one calls `read` of
    /// [`load`](Self::load) again.
    pub fn keeps_encoders(&self) -> Result<bool, Failure> {
        Ok(self.loaded()?.files.is_none())
    }

    /// Reads a component again, by the name that [`generate`](Self::generate) asked for.
    pub fn load_component(&self, name: &str) -> Result<(), Failure> {
        let loaded = self.loaded()?;
        match &loaded.files {
            Some(files) => Ok(loaded.studio.load_component(name, files)?),
            // Nothing was let go of.
            None => Ok(()),
        }
    }

    /// Makes the pictures of a request: `GenerateRequest` in, `Picture[]` out, as in `web/engine/protocol.js`.
    ///
    /// `on_progress` gets a `Progress` after every step; between steps the event loop turns. `bring` is called, and awaited, with
    /// the name of each component of a large model that is needed and was let go of: it has it
    /// [loaded again](Self::load_component).
    pub async fn generate(
        &self,
        request: JsValue,
        on_progress: Function,
        bring: Function,
    ) -> Result<Array, Failure> {
        if self.busy.replace(true) {
            return Err(Error::input(
                "engine-busy",
                "a picture is being made already",
                "wait for it, or cancel it",
            )
            .into());
        }
        self.cancelled.set(false);
        let result = self.run(request, on_progress, bring).await;
        self.busy.set(false);
        result
    }

    /// The `GenerateRequest` that makes a picture again: of its PNG, of the files of the pictures that it was made from, in any order,
    /// and of `{ prompt, negative_prompt }` where the PNG leaves them out.
    ///
    /// Rejects where the picture was made by another model, or in another precision, or a picture is missing.
    pub fn request(&self, png: Vec<u8>, pictures: JsValue, words: JsValue) -> Result<JsValue, Failure> {
        let loaded = self.loaded()?;
        let recipe = codec::read_recipe(&png)?;
        recipe.check(loaded.studio.model(), loaded.studio.precision())?;
        Ok(convert::again(&recipe, pictures, words)?)
    }

    /// The faces of a picture: an array of `Face` of `web/engine/protocol.js`, the largest first.
    pub async fn faces(&self, image: Vec<u8>) -> Result<Array, Failure> {
        let loaded = self.loaded()?;
        let picture = convert::decode(&image)?;
        let mut found = loaded.studio.faces(&picture).await?;
        found.sort_by(|a, b| b.area().total_cmp(&a.area()));
        let faces = found.iter().map(|face| convert::face(face, &picture)).collect::<Result<Array>>()?;
        Ok(faces)
    }

    /// How alike the people of a picture and a `Person` of `web/engine/protocol.js` are, −1 to 1.
    pub async fn similarity(&self, picture: Vec<u8>, person: JsValue) -> Result<f32, Failure> {
        let loaded = self.loaded()?;
        let (person, picture) = (convert::reference(person)?, convert::decode(&picture)?);
        Ok(loaded.studio.similarity(&picture, &person).await?)
    }

    /// What the loaded model makes: `Abilities` of `web/engine/protocol.js`.
    pub fn abilities(&self) -> Result<JsValue, Failure> {
        Ok(convert::abilities(&self.loaded()?.studio)?)
    }

    /// What the loaded model's denoiser computes in: `f16` or `f32`.
    pub fn precision(&self) -> Result<String, Failure> {
        Ok(self.loaded()?.studio.precision().to_owned())
    }

    /// Stops the generation that is under way within one step; its promise rejects with code `cancelled`.
    pub fn cancel(&self) {
        self.cancelled.set(true);
    }
}

impl Engine {
    fn loaded(&self) -> Result<Rc<Loaded>> {
        self.studio
            .borrow()
            .clone()
            .ok_or_else(|| Error::input("model-not-open", "no model is loaded", "load it first"))
    }

    async fn run(&self, request: JsValue, on_progress: Function, bring: Function) -> Result<Array, Failure> {
        let loaded = self.loaded()?;
        let request = convert::request(request, loaded.studio.defaults())?;
        let watch = async |progress: Progress| {
            if progress.phase != Phase::Encode || progress.step == progress.steps {
                loaded.lighten();
            }
            // A progress handler that throws must not stop the picture.
            let _ = on_progress.call1(&JsValue::NULL, &convert::progress(&progress));
            next_task().await;
            if self.cancelled.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // What `bring` threw is the page's own.
        let thrown = RefCell::new(None);
        let bring = async |component: &str| {
            let brought = async {
                JsFuture::from(Promise::resolve(&bring.call1(&JsValue::NULL, &component.into())?)).await
            };
            brought.await.map(|_| ()).map_err(|reason| {
                thrown.replace(Some(reason));
                Error::cancelled()
            })
        };
        let made = loaded.studio.generate_with(&request, watch, bring).await;
        if let Some(reason) = thrown.take() {
            return Err(reason.into());
        }
        let pictures = made?;
        let array = Array::new();
        for picture in &pictures {
            array.push(&convert::picture(picture)?);
        }
        Ok(array)
    }
}

/// The device of a backend.
pub(super) async fn device(backend: &str) -> Result<Device> {
    match backend {
        #[cfg(feature = "gpu")]
        "webgpu" => webgpu().await,
        #[cfg(feature = "cpu")]
        "cpu" => Ok(Device::flex()),
        _ => Err(Error::device(
            "backend-missing",
            format!("this build has no backend '{backend}'"),
            "build with the features `cpu` and `gpu`",
        )),
    }
}

#[cfg(feature = "gpu")]
async fn webgpu() -> Result<Device> {
    thread_local! {
        // The runtime can be set up once per module; the device is cheap to clone.
        static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
    }
    if let Some(device) = DEVICE.with(|slot| slot.borrow().clone()) {
        return Ok(device);
    }
    let device = Device::wgpu_options().init_async().await.map_err(|e| {
        Error::device("webgpu-failed", format!("WebGPU did not start: {e}"), "use the backend `cpu`")
    })?;
    DEVICE.with(|slot| slot.replace(Some(device.clone())));
    Ok(device)
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: i32);

    #[cfg(feature = "gpu")]
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

/// Waits for the next turn of the event loop: a resolved promise would run before any message is delivered.
async fn next_task() {
    let promise = Promise::new(&mut |resolve, _| set_timeout(&resolve, 0));
    // This promise is never rejected.
    let _ = JsFuture::from(promise).await;
}
