//! Sets of named counters. Never resets one.

/// Declares an enum `Count` of things that are counted and their `Counters`.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal;)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $($(#[doc = $doc])* $variant,)* }

        impl Count {
            /// Every count, in order.
            pub const ALL: &'static [Count] = &[$(Count::$variant,)*];

            /// The stable name used in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Count::$variant => $name,)* }
            }
        }

        /// The counts' values.
        #[derive(Debug)]
        pub struct Counters([::std::sync::atomic::AtomicU64; Count::ALL.len()]);

        impl Default for Counters {
            fn default() -> Counters {
                Counters(::std::array::from_fn(|_| ::std::sync::atomic::AtomicU64::new(0)))
            }
        }

        impl Counters {
            pub(super) fn add(&self, count: Count) {
                self.0[count as usize].fetch_add(1, ::std::sync::atomic::Ordering::Relaxed);
            }

            /// The value of one count.
            pub fn get(&self, count: Count) -> u64 {
                self.0[count as usize].load(::std::sync::atomic::Ordering::Relaxed)
            }

            /// Every name with its value.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                Count::ALL.iter().map(|count| (count.name(), self.get(*count))).collect()
            }
        }
    };
}

pub(crate) use counters;
