//! An asset goes to other groups: its client has every event once, in order, and is told of no gap.

mod away;
mod live;
mod scene;
