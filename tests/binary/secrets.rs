//! Prints every message with every field filled, and looks for what must not be printed.
//!
//! The messages are built from the descriptor and decoded into the generated types, so a message or a secret field added
//! later is tried without a line here.

use prost::Message;
use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use crate::wire_facts::compiled;

/// Part of each secret name and value, and of nothing else.
const SECRET: &str = "hunter2";

type Show = fn(&[u8]) -> Result<String, prost::DecodeError>;

/// Every message of csi.v1 with the code that decodes and prints it.
fn csi_messages() -> &'static [(&'static str, Show)] {
    use sanpath::csi::proto;
    include!(concat!(env!("OUT_DIR"), "/csi.v1.shown.rs"))
}

fn show<M: Message + Default + std::fmt::Debug>(
    bytes: &[u8],
) -> Result<String, prost::DecodeError> {
    let message = M::decode(bytes)?;
    Ok(format!("{message:?}\n{message:#?}"))
}

#[test]
fn no_message_prints_a_secret_and_all_print_the_rest() {
    let pool = compiled();
    let mut secrets = 0;
    for (name, show) in csi_messages() {
        let descriptor = pool.get_message_by_name(name).unwrap();
        // One pass per member of its largest oneof; no message has more than three.
        for choice in 0..3 {
            let mut filler = Filler {
                choice,
                plain: Vec::new(),
                secrets: 0,
            };
            let text = show(&filler.fill(&descriptor).encode_to_vec()).unwrap();
            assert!(!text.contains(SECRET), "{name} prints a secret: {text}");
            for plain in &filler.plain {
                assert!(
                    text.contains(plain.as_str()),
                    "{name} hides {plain}: {text}"
                );
            }
            secrets += filler.secrets;
        }
    }
    assert!(secrets >= 3 * 22, "only {secrets} secrets were tried");
}

/// A package that gets its first secret must be tried here as well.
#[test]
fn all_packages_with_secrets_are_tried() {
    let pool = compiled();
    let secret_fields = pool
        .all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(is_secret);
    let elsewhere: Vec<_> = secret_fields
        .map(|field| field.full_name().to_owned())
        .filter(|name| !name.starts_with("csi.v1."))
        .collect();
    assert!(
        elsewhere.is_empty(),
        "list the messages of this package as csi_messages does: {elsewhere:?}"
    );
}

#[test]
fn a_secret_shows_how_many_entries_it_has() {
    let request = sanpath::csi::proto::DeleteVolumeRequest {
        volume_id: "pvc-1".to_owned(),
        secrets: [("user".to_owned(), SECRET.to_owned())].into(),
    };
    assert_eq!(
        format!("{request:?}"),
        "DeleteVolumeRequest { volume_id: \"pvc-1\", secrets: [redacted, 1 entries] }"
    );
}

/// Fills a message; remembers what must be shown and how many secrets must not.
struct Filler {
    /// Which member of each oneof to set.
    choice: usize,
    plain: Vec<String>,
    secrets: usize,
}

impl Filler {
    fn fill(&mut self, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if self.chosen(&field) {
                message.set_field(&field, self.value(&field));
            }
        }
        message
    }

    fn chosen(&self, field: &FieldDescriptor) -> bool {
        field.containing_oneof().is_none_or(|oneof| {
            let members: Vec<_> = oneof.fields().collect();
            members[self.choice % members.len()] == *field
        })
    }

    fn value(&mut self, field: &FieldDescriptor) -> Value {
        let secret = is_secret(field);
        self.secrets += usize::from(secret);
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let key = self.text(field, "key", secret);
                let value = match entry.map_entry_value_field().kind() {
                    Kind::Message(inner) => Value::Message(self.fill(&inner)),
                    _ => Value::String(self.text(field, "value", secret)),
                };
                Value::Map([(MapKey::String(key), value)].into())
            }
            kind => {
                let one = self.single(field, &kind, secret);
                if field.cardinality() == Cardinality::Repeated {
                    Value::List(vec![one])
                } else {
                    one
                }
            }
        }
    }

    fn single(&mut self, field: &FieldDescriptor, kind: &Kind, secret: bool) -> Value {
        match kind {
            Kind::Message(inner) => Value::Message(self.fill(inner)),
            Kind::String => Value::String(self.text(field, "text", secret)),
            Kind::Enum(each) => Value::EnumNumber(each.values().last().unwrap().number()),
            other => other.default_value(),
        }
    }

    fn text(&mut self, field: &FieldDescriptor, what: &str, secret: bool) -> String {
        if secret {
            return format!("{SECRET}-{what}");
        }
        let text = format!("{}-{what}", field.full_name());
        self.plain.push(text.clone());
        text
    }
}

fn is_secret(field: &FieldDescriptor) -> bool {
    let option = field
        .parent_pool()
        .get_extension_by_name("csi.v1.csi_secret")
        .unwrap();
    field.options().get_extension(&option).as_bool() == Some(true)
        || field.full_name() == "csi.v1.VolumeCapability.MountVolume.mount_flags"
}
