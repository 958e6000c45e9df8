//! Writes the `Debug` of messages that hold secrets. Called by the build script only.
//!
//! prost derives a `Debug` that prints all fields. It is switched off for every message with a secret field, and this module
//! writes one that prints the others and, of a secret, at most how many entries it has. Both are decided from the compiled
//! descriptor, so a secret field added to a `.proto` is covered on the next build. Messages that merely contain such
//! messages keep the derived form and are safe through it.

use std::collections::BTreeSet;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, OneofDescriptor,
};

const SECRET_OPTION: &str = "csi.v1.csi_secret";

/// Which fields are secret, by full name.
pub struct Secrets {
    fields: BTreeSet<String>,
    messages: BTreeSet<String>,
}

impl Secrets {
    pub fn find(pool: &DescriptorPool, also: &[&str]) -> Result<Self, String> {
        let option = pool
            .get_extension_by_name(SECRET_OPTION)
            .ok_or("csi.proto must define csi_secret")?;
        let mut found = Self {
            fields: BTreeSet::new(),
            messages: BTreeSet::new(),
        };
        for message in pool.all_messages() {
            for field in message.fields() {
                if field.options().has_extension(&option) || also.contains(&field.full_name()) {
                    found.fields.insert(field.full_name().to_owned());
                    found.messages.insert(message.full_name().to_owned());
                }
            }
        }
        match also.iter().find(|name| !found.fields.contains(**name)) {
            Some(missing) => Err(format!("no such field: {missing}")),
            None => Ok(found),
        }
    }

    /// The messages whose derived `Debug` must go, as prost-build wants them named.
    pub fn messages(&self) -> Vec<String> {
        self.messages
            .iter()
            .map(|name| format!(".{name}"))
            .collect()
    }

    /// The `Debug` of all that lost it in `package`.
    ///
    /// prost-build's names match by prefix: what is declared inside a message with secrets loses its `Debug` too.
    pub fn debug_code(&self, pool: &DescriptorPool, package: &str) -> String {
        let mut code = String::new();
        for message in messages_of(pool, package).filter(|message| self.covers(message.full_name()))
        {
            code.push_str(&self.message_debug(&message));
            for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
                code.push_str(&self.oneof_debug(&message, &oneof));
            }
            message
                .child_enums()
                .for_each(|each| code.push_str(&enum_debug(&message, &each)));
        }
        code
    }

    fn covers(&self, name: &str) -> bool {
        self.messages.iter().any(|outer| {
            name.strip_prefix(outer.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    fn message_debug(&self, message: &MessageDescriptor) -> String {
        let mut body = format!("f.debug_struct({:?})", message.name().to_upper_camel_case());
        for field in message.fields().filter(|field| real_oneof(field).is_none()) {
            let name = field.name().to_snake_case();
            body.push_str(&format!(
                "\n            .field({name:?}, &{})",
                self.shown(&field, &format!("self.r#{name}"))
            ));
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let name = oneof.name().to_snake_case();
            body.push_str(&format!("\n            .field({name:?}, &self.r#{name})"));
        }
        debug_impl(
            &message_path(message),
            &format!("{body}\n            .finish()"),
        )
    }

    fn oneof_debug(&self, message: &MessageDescriptor, oneof: &OneofDescriptor) -> String {
        let mut body = "match self {".to_owned();
        for field in oneof.fields() {
            let variant = field.name().to_upper_camel_case();
            // The underscore: a secret is not looked at.
            let shown = self.shown(&field, "_value");
            body.push_str(&format!("\n            Self::{variant}(_value) => f.debug_tuple({variant:?}).field(&{shown}).finish(),"));
        }
        let path = format!(
            "{}::{}",
            module_path(message),
            oneof.name().to_upper_camel_case()
        );
        debug_impl(&path, &format!("{body}\n        }}"))
    }

    /// The expression to print for a field. An enum shows its number, as that is what the struct holds.
    fn shown(&self, field: &FieldDescriptor, place: &str) -> String {
        if !self.fields.contains(field.full_name()) {
            place.to_owned()
        } else if field.is_map() || field.is_list() {
            format!("::core::format_args!(\"[redacted, {{}} entries]\", {place}.len())")
        } else {
            "::core::format_args!(\"[redacted]\")".to_owned()
        }
    }
}

/// An expression listing `(full name, show::<Type>)` of all messages of the package; `proto` and `show` come from whoever
/// includes it.
pub fn list_code(pool: &DescriptorPool, package: &str) -> String {
    let rows = messages_of(pool, package).map(|message| {
        format!(
            "    ({:?}, show::<proto::{}>),\n",
            message.full_name(),
            message_path(&message)
        )
    });
    format!("&[\n{}]\n", rows.collect::<String>())
}

/// The packages declared here, as opposed to imported from Google's own files.
pub fn own_packages(pool: &DescriptorPool) -> BTreeSet<String> {
    let packages = pool.files().map(|file| file.package_name().to_owned());
    packages
        .filter(|package| !package.starts_with("google."))
        .collect()
}

fn messages_of<'a>(
    pool: &'a DescriptorPool,
    package: &'a str,
) -> impl Iterator<Item = MessageDescriptor> + 'a {
    pool.all_messages()
        .filter(move |message| message.package_name() == package && !message.is_map_entry())
}

/// A oneof that somebody wrote; the ones standing for proto3 `optional` are no part of the Rust types.
fn real_oneof(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
}

fn enum_debug(message: &MessageDescriptor, each: &EnumDescriptor) -> String {
    let path = format!(
        "{}::{}",
        module_path(message),
        each.name().to_upper_camel_case()
    );
    debug_impl(&path, "f.write_str(self.as_str_name())")
}

fn debug_impl(path: &str, body: &str) -> String {
    format!(
        "impl ::core::fmt::Debug for {path} {{\n    \
         fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        {body}\n    }}\n}}\n"
    )
}

/// Where prost-build puts the type, from the module of its package.
fn message_path(message: &MessageDescriptor) -> String {
    let name = message.name().to_upper_camel_case();
    match message.parent_message() {
        Some(parent) => format!("{}::{name}", module_path(&parent)),
        None => name,
    }
}

/// Where prost-build puts what is declared inside the message.
fn module_path(message: &MessageDescriptor) -> String {
    let name = message.name().to_snake_case();
    match message.parent_message() {
        Some(parent) => format!("{}::{name}", module_path(&parent)),
        None => name,
    }
}
