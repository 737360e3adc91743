//! Headers that a service insists on: a request without one of them, or with another value, is refused, and so is one that says what only a
//! put may say.

use std::sync::{Mutex, PoisonError};

use crate::http::{Reply, Request};

/// What a service insists on.
#[derive(Debug, Default)]
pub struct Demands(Mutex<Vec<Demand>>);

#[derive(Debug)]
struct Demand {
    name: &'static str,
    value: String,
    of_puts: bool,
}

impl Demands {
    /// Every request must say this.
    pub fn on_all(&self, name: &'static str, value: &str) {
        self.add(Demand { name, value: value.to_owned(), of_puts: false });
    }

    /// Every put must say this, and nothing else may.
    pub fn on_puts(&self, name: &'static str, value: &str) {
        self.add(Demand { name, value: value.to_owned(), of_puts: true });
    }

    fn add(&self, demand: Demand) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(demand);
    }

    /// The refusal of a request that does not say what it must.
    pub(crate) fn refusal(&self, request: &Request) -> Option<Reply> {
        let demands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = demands.iter().find(|demand| {
            let expected = if demand.of_puts && request.method != "PUT" { "" } else { demand.value.as_str() };
            request.header(demand.name) != expected
        })?;
        let told = format!("{} is not what it must be", unmet.name);
        Some(Reply::error(400, "InvalidArgument", &told))
    }
}
