//! Tables by small numbers, which grow as they are used.

/// The element of a number, which is there from now on.
pub(crate) fn slot<T: Default>(all: &mut Vec<T>, number: usize) -> &mut T {
    if all.len() <= number {
        all.resize_with(number + 1, T::default);
    }
    &mut all[number]
}
