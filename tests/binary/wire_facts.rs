//! Compares `proto/csi.proto` as compiled with the facts of the spec's tag, both ways: nothing missing, nothing extra.
//!
//! Both sides are turned into one line per element, so a difference reads as the line it is about.

use std::collections::BTreeSet;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, ServiceDescriptor,
};
use serde::Deserialize;

const FACTS: &str = include_str!("fixtures/csi-wire-facts.json");

/// The descriptors as the build script compiled them, options included.
pub fn compiled() -> DescriptorPool {
    DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..])
        .unwrap()
}

#[test]
fn csi_proto_is_the_wire_of_the_spec() {
    let facts: Facts = serde_json::from_str(FACTS).unwrap();
    let expected = facts.lines();
    let actual = lines_of(&compiled(), &facts.package);
    let missing: Vec<_> = expected.difference(&actual).collect();
    let extra: Vec<_> = actual.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:#?}\nextra: {extra:#?}"
    );
}

#[test]
fn the_facts_are_complete() {
    let facts: Facts = serde_json::from_str(FACTS).unwrap();
    let lines = facts.lines();
    let count = |prefix: &str| lines.iter().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(facts.spec_tag, "v1.13.0");
    assert_eq!((count("service "), count("rpc ")), (5, 36));
    assert_eq!((count("message "), count("field ")), (104, 216));
    assert_eq!((count("enum "), count("value ")), (10, 57));
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("csi_secret]") && line.starts_with("field "))
            .count(),
        22
    );
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    spec_tag: String,
    package: String,
    custom_options: Vec<CustomOption>,
    services: Vec<Service>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomOption {
    name: String,
    number: u32,
    #[serde(rename = "type")]
    kind: String,
    extends: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    #[serde(default)]
    options: Vec<String>,
    methods: Vec<Method>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    path: String,
    request: String,
    response: String,
    #[serde(default)]
    client_streaming: bool,
    #[serde(default)]
    server_streaming: bool,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    name: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    oneofs: Vec<String>,
    #[serde(default)]
    reserved: Vec<(i64, i64)>,
    #[serde(default)]
    reserved_names: Vec<String>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    number: u32,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    repeated: bool,
    #[serde(default)]
    oneof: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enum {
    name: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    reserved: Vec<(i64, i64)>,
    #[serde(default)]
    reserved_names: Vec<String>,
    values: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    name: String,
    number: i32,
    #[serde(default)]
    options: Vec<String>,
}

impl Facts {
    fn lines(&self) -> BTreeSet<String> {
        let package = &self.package;
        let mut lines = BTreeSet::new();
        for option in &self.custom_options {
            let CustomOption {
                name,
                number,
                kind,
                extends,
            } = option;
            lines.insert(format!(
                "option {package}.{name} = {number} {kind} extends {extends}"
            ));
        }
        for service in &self.services {
            lines.insert(format!(
                "service {}{}",
                service.name,
                marks(&service.options)
            ));
            lines.extend(service.methods.iter().map(|method| method.line(package)));
        }
        for message in &self.messages {
            lines.extend(message.lines());
        }
        for each in &self.enums {
            lines.extend(each.lines());
        }
        lines
    }
}

impl Method {
    fn line(&self, package: &str) -> String {
        let request = format!(
            "{}{package}.{}",
            stream(self.client_streaming),
            self.request
        );
        let response = format!(
            "{}{package}.{}",
            stream(self.server_streaming),
            self.response
        );
        format!(
            "rpc {} ({request}) returns ({response}){}",
            self.path,
            marks(&self.options)
        )
    }
}

impl Message {
    fn lines(&self) -> Vec<String> {
        let name = &self.name;
        let mut lines = vec![format!("message {name}{}", marks(&self.options))];
        lines.extend(
            self.oneofs
                .iter()
                .map(|oneof| format!("oneof {name}.{oneof}")),
        );
        lines.extend(reserved_lines(
            name,
            self.reserved.iter().copied(),
            self.reserved_names.iter().map(String::as_str),
        ));
        lines.extend(self.fields.iter().map(|field| field.line(name)));
        lines
    }
}

impl Field {
    fn line(&self, message: &str) -> String {
        let repeated = if self.repeated { "repeated " } else { "" };
        let oneof = if self.oneof.is_empty() {
            String::new()
        } else {
            format!(" in {}", self.oneof)
        };
        format!(
            "field {message}.{} = {} {repeated}{}{oneof}{}",
            self.name,
            self.number,
            self.kind,
            marks(&self.options)
        )
    }
}

impl Enum {
    fn lines(&self) -> Vec<String> {
        let name = &self.name;
        let mut lines = vec![format!("enum {name}{}", marks(&self.options))];
        lines.extend(reserved_lines(
            name,
            self.reserved.iter().copied(),
            self.reserved_names.iter().map(String::as_str),
        ));
        lines.extend(self.values.iter().map(|value| {
            format!(
                "value {name}.{} = {}{}",
                value.name,
                value.number,
                marks(&value.options)
            )
        }));
        lines
    }
}

/// The same lines from what was compiled.
fn lines_of(pool: &DescriptorPool, package: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for option in pool
        .all_extensions()
        .filter(|option| option.package_name() == package)
    {
        let (name, number) = (option.full_name(), option.number());
        let (kind, extended) = (kind_name(&option.kind()), option.containing_message());
        lines.insert(format!(
            "option {name} = {number} {kind} extends {}",
            extended.full_name()
        ));
    }
    for service in pool
        .services()
        .filter(|service| service.package_name() == package)
    {
        lines.extend(service_lines(&service));
    }
    for message in pool
        .all_messages()
        .filter(|message| message.package_name() == package && !message.is_map_entry())
    {
        lines.extend(message_lines(&message));
    }
    for each in pool
        .all_enums()
        .filter(|each| each.package_name() == package)
    {
        lines.extend(enum_lines(&each));
    }
    lines
}

fn service_lines(service: &ServiceDescriptor) -> Vec<String> {
    let mut lines = vec![format!(
        "service {}{}",
        service.name(),
        marks(&set_options(&service.options()))
    )];
    for method in service.methods() {
        let path = format!("/{}/{}", service.full_name(), method.name());
        let request = format!(
            "{}{}",
            stream(method.is_client_streaming()),
            method.input().full_name()
        );
        let response = format!(
            "{}{}",
            stream(method.is_server_streaming()),
            method.output().full_name()
        );
        let options = marks(&set_options(&method.options()));
        lines.push(format!(
            "rpc {path} ({request}) returns ({response}){options}"
        ));
    }
    lines
}

fn message_lines(message: &MessageDescriptor) -> Vec<String> {
    let name = in_package(message.full_name(), message.package_name());
    let mut lines = vec![format!(
        "message {name}{}",
        marks(&set_options(&message.options()))
    )];
    lines.extend(
        message
            .oneofs()
            .map(|oneof| format!("oneof {name}.{}", oneof.name())),
    );
    let reserved = message
        .reserved_ranges()
        .map(|range| (i64::from(range.start), i64::from(range.end) - 1));
    lines.extend(reserved_lines(name, reserved, message.reserved_names()));
    lines.extend(message.fields().map(|field| field_line(name, &field)));
    lines
}

fn field_line(message: &str, field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            format!(
                "map<{}, {}>",
                kind_name(&key.kind()),
                kind_name(&value.kind())
            )
        }
        kind => kind_name(&kind),
    };
    let label = match field.cardinality() {
        Cardinality::Repeated if field.is_map() => "",
        Cardinality::Repeated => "repeated ",
        Cardinality::Required => "required ",
        Cardinality::Optional => "",
    };
    let oneof = field
        .containing_oneof()
        .map_or_else(String::new, |oneof| format!(" in {}", oneof.name()));
    let options = marks(&set_options(&field.options()));
    format!(
        "field {message}.{} = {} {label}{kind}{oneof}{options}",
        field.name(),
        field.number()
    )
}

fn enum_lines(each: &EnumDescriptor) -> Vec<String> {
    let name = in_package(each.full_name(), each.package_name());
    let mut lines = vec![format!(
        "enum {name}{}",
        marks(&set_options(&each.options()))
    )];
    let reserved = each
        .reserved_ranges()
        .map(|range| (i64::from(*range.start()), i64::from(*range.end())));
    lines.extend(reserved_lines(name, reserved, each.reserved_names()));
    for value in each.values() {
        let options = marks(&set_options(&value.options()));
        lines.push(format!(
            "value {name}.{} = {}{options}",
            value.name(),
            value.number()
        ));
    }
    lines
}

fn reserved_lines<'a>(
    owner: &str,
    ranges: impl Iterator<Item = (i64, i64)>,
    names: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let ranges = ranges.map(|(first, last)| format!("reserved {owner} {first} to {last}"));
    ranges
        .chain(names.map(|name| format!("reserved {owner} {name}")))
        .collect()
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(each) => each.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn in_package<'a>(full: &'a str, package: &str) -> &'a str {
    full.strip_prefix(package)
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(full)
}

/// Names of the extension options that are set to true.
fn set_options(options: &DynamicMessage) -> Vec<String> {
    options
        .extensions()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .map(|(option, _)| option.name().to_owned())
        .collect()
}

fn marks(options: &[String]) -> String {
    let sorted: BTreeSet<&str> = options.iter().map(String::as_str).collect();
    if sorted.is_empty() {
        String::new()
    } else {
        format!(" [{}]", sorted.into_iter().collect::<Vec<_>>().join(" "))
    }
}

fn stream(streaming: bool) -> &'static str {
    if streaming { "stream " } else { "" }
}
