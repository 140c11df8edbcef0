//! Enums whose every variant has a counter's name and a help text: one list, from which everything that shows it is made.

/// Defines such an enum: documentation, name, then `Variant "counter_name" "help";` for each.
///
/// It gets `ALL`, `COUNT`, `name()` and `help()`; a variant's number is its place in the list.
#[macro_export]
macro_rules! named {
    (
        $(#[$meta:meta])*
        $enum:ident;
        $($variant:ident $name:literal $help:literal;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum {
            $(#[doc = concat!("Counted as `", $name, "`; [`Self::help`] says what it means.")] $variant,)*
        }

        impl $enum {
            /// Every one, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, and what to do about it where something is to be done.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}
