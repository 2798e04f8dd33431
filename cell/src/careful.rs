//! The careful reference.
