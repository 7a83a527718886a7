//! Errors and panics as JavaScript sees them.

use std::cell::RefCell;

use js_sys::{Object, Reflect};
use wasm_bindgen::JsValue;

use facestudio::error::{Error, Fault, Notice};

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What is thrown: `{ code, fault, message, remedy }`, the `Failure` of `web/engine/protocol.js`, or what JavaScript threw itself.
pub struct Failure(JsValue);

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<JsValue> for Failure {
    fn from(thrown: JsValue) -> Self {
        Self(thrown)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let fault = match error.fault {
            Fault::Input => "input",
            Fault::Weights => "weights",
            Fault::Device => "device",
            Fault::Io => "io",
            Fault::Cancelled => "cancelled",
            Fault::Internal => "internal",
        };
        let fields =
            [("code", error.code), ("fault", fault), ("message", &error.message), ("remedy", &error.remedy)];
        let object = Object::new();
        for (name, value) in fields {
            set(&object, name, &value.into());
        }
        Self(object.into())
    }
}

/// A `Notice` of `web/engine/protocol.js`.
pub fn notice(notice: &Notice) -> JsValue {
    let values = Object::new();
    for (name, value) in &notice.values {
        set(&values, name, &value.into());
    }
    let object = Object::new();
    set(&object, "code", &notice.code.into());
    set(&object, "message", &notice.message.as_str().into());
    set(&object, "remedy", &notice.remedy.as_str().into());
    set(&object, "values", &values);
    object.into()
}

/// Sets a property of a fresh plain object.
pub fn set(object: &Object, name: &str, value: &JsValue) {
    // Only frozen objects and proxies refuse a property.
    let done = Reflect::set(object, &name.into(), value);
    debug_assert!(done.is_ok());
}

/// Prints panics to the console and keeps the last one.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()));
        console_error_panic_hook::hook(info);
    }));
}

/// What the last panic said.
pub fn last_panic() -> Option<String> {
    LAST_PANIC.with(|last| last.borrow().clone())
}
