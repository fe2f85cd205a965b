//! A factory of plausible machines, or a recording of a real one many times over.
//!
//! Everything but the clock is decided by the seed, so that two runs produce the same events.

mod factory;
mod machine;
mod recording;
mod run;
mod uns;

pub use factory::{Due, Factory};
pub use machine::Machine;
pub use recording::{Recording, RecordingError};
pub use run::{Pace, RunError, run};
pub use uns::UnsPlace;
