//! Owns the search through every order in which a few things can happen to a small world.

use std::{
    collections::HashSet,
    fmt::{self, Debug, Write as _},
    hash::{DefaultHasher, Hasher as _},
};

/// A world in which things happen. Its `Debug` has to show all that its future depends on: worlds
/// that look alike are taken for one.
pub trait World: Clone + Debug {
    /// One thing that happens.
    type Step: Copy + Debug;

    /// All that can happen next.
    fn steps(&self) -> Vec<Self::Step>;

    /// Has it happen; panics where that breaks a promise.
    fn take(&mut self, step: Self::Step);

    /// Lets the world end well; panics where it cannot.
    fn end(self);
}

/// What a search went through.
#[derive(Debug, Clone, Copy)]
pub struct Explored {
    /// Different worlds.
    pub states: usize,
    /// Things that happened.
    pub steps: usize,
}

/// Goes through every order of up to `depth` things, the shortest first, and tells the story that
/// led to a broken promise.
pub fn explore<W: World>(start: W, depth: usize) -> Explored {
    let mut seen = HashSet::from([print_of(&start)]);
    let mut frontier = vec![(Vec::new(), start)];
    let mut taken = 0;
    for left in (0..depth).rev() {
        let mut next = Vec::new();
        for (path, world) in frontier {
            for step in world.steps() {
                let path = [&path[..], &[step]].concat();
                let story = Story(&path);
                let mut world = world.clone();
                world.take(step);
                taken += 1;
                if seen.insert(print_of(&world)) {
                    world.clone().end();
                    drop(story);
                    if left > 0 {
                        next.push((path, world));
                    }
                }
            }
        }
        frontier = next;
    }
    Explored {
        states: seen.len(),
        steps: taken,
    }
}

/// Tells what happened before a panic.
struct Story<'a, S: Debug>(&'a [S]);

impl<S: Debug> Drop for Story<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this is what happened, in order: {:#?}", self.0);
        }
    }
}

/// A hash of what a world looks like. That two look alike by chance is not to be expected among
/// some hundred thousand.
fn print_of(world: &impl Debug) -> u64 {
    struct Hashed(DefaultHasher);
    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(DefaultHasher::new());
    // A hasher takes everything.
    let _ = write!(hashed, "{world:?}");
    hashed.0.finish()
}
