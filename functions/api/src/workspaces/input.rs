//! Workspaces as administrators and owners write them, and as they are shown.

use carillon_core::endpoint::EndpointRules;
use carillon_core::id::WorkspaceId;
use carillon_core::invalid::{Findings, Invalid};
use carillon_core::subscription::Rate;
use carillon_core::time::{UnixMillis, rfc3339};
use carillon_core::workspace::{
    AudienceRule, Settings, Verification, Workspace, WorkspaceKind, WorkspaceName, WorkspaceStatus,
};
use carillon_http::access::Caller;
use carillon_http::body::{optional_object, whole};
use carillon_http::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// A new workspace.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewWorkspace {
    /// Its name in URLs, which cannot be changed later. Carillon makes one if it is absent.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    id: Option<String>,
    /// Its name for people.
    #[schema(schema_with = name_for_people)]
    name: String,
    /// Which catalogue of event types it has. It cannot be changed later.
    #[schema(value_type = KindShown)]
    kind: WorkspaceKind,
    /// What it allows and demands.
    #[serde(default, deserialize_with = "optional_object")]
    settings: Option<SettingsInput>,
}

/// What can be changed of a workspace.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkspaceInput {
    /// Its name for people.
    #[schema(schema_with = name_for_people)]
    name: String,
    /// What it allows and demands.
    #[serde(default, deserialize_with = "optional_object")]
    settings: Option<SettingsInput>,
}

/// Changes of a workspace.
#[derive(ToSchema)]
#[schema(
    rename_all = "camelCase",
    example = json!({"settings": {"verification": "challenge", "defaultRatePerMinute": null}}),
)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes a patch of WorkspaceInput, which is read as such when it was applied"
)]
pub(super) struct WorkspacePatch {
    /// Its name for people.
    #[schema(required = false, schema_with = name_for_people)]
    name: Option<String>,
    /// What it allows and demands.
    settings: Option<SettingsInput>,
}

/// What a workspace allows and demands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SettingsInput {
    /// Whether endpoints must be HTTPS: they must by default. Only an administrator can do without, and only where the
    /// deployment allows it.
    #[serde(default)]
    https_required: Option<bool>,
    /// Whether endpoints' certificates go unchecked: they do not by default. Only an administrator can have it so, and
    /// only where the deployment allows it.
    #[serde(default)]
    developer_mode: Option<bool>,
    /// Whether events must name whom they are for: of a consent by default, of others not.
    #[serde(default)]
    #[schema(value_type = Option<AudienceShown>)]
    audience: Option<AudienceRule>,
    /// How a new endpoint's owner confirms that it wants to be called: not at all by default.
    #[serde(default)]
    #[schema(value_type = Option<VerificationShown>)]
    verification: Option<Verification>,
    /// The rate of subscriptions that name none; without bound by default.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 100_000)]
    default_rate_per_minute: Option<u32>,
    /// Whether deliveries are shown with the begin of what receivers answered: they are by default.
    #[serde(default)]
    show_responses: Option<bool>,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workspace)]
pub(super) struct Shown {
    /// Its name in URLs.
    #[schema(value_type = String, example = "acme-consents")]
    id: WorkspaceId,
    /// Its name for people.
    #[schema(value_type = String, example = "Consents of Acme Bank")]
    name: WorkspaceName,
    /// Which catalogue of event types it has.
    #[schema(value_type = KindShown)]
    kind: WorkspaceKind,
    /// What it allows and demands.
    #[schema(value_type = SettingsShown)]
    settings: Settings,
    /// Whether it is there to stay.
    #[schema(value_type = StatusShown)]
    status: WorkspaceStatus,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixMillis,
    /// When it was last changed.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: UnixMillis,
}

/// What a workspace allows and demands.
#[derive(ToSchema)]
#[schema(as = Settings, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes Settings of the core, which knows no OpenAPI")]
struct SettingsShown {
    /// Whether endpoints must be HTTPS.
    https_required: bool,
    /// Whether endpoints' certificates go unchecked.
    developer_mode: bool,
    /// Whether events must name whom they are for.
    audience: AudienceShown,
    /// How a new endpoint's owner confirms that it wants to be called.
    verification: VerificationShown,
    /// The rate of subscriptions that name none; without bound if absent.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 100_000)]
    default_rate_per_minute: Option<u32>,
    /// Whether deliveries are shown with the begin of what receivers answered.
    show_responses: bool,
}

/// What a workspace is for.
#[derive(ToSchema)]
#[schema(as = WorkspaceKind, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes WorkspaceKind of the core, which knows no OpenAPI")]
enum KindShown {
    /// Consents of open finance.
    Consent,
    /// User accounts.
    Identity,
    /// A directory of organisations.
    Directory,
    /// Event types of its own.
    Custom,
}

/// Whether events must name whom they are for: `open` means that one without an audience is for every subscriber,
/// `required` that it is refused.
#[derive(ToSchema)]
#[schema(as = Audience, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes AudienceRule of the core, which knows no OpenAPI")]
enum AudienceShown {
    /// An event without one is for every subscriber.
    Open,
    /// An event without one is refused.
    Required,
}

/// How a new endpoint's owner confirms that it wants to be called: not at all, by the handshake of CloudEvents, or by
/// visiting a URL that is posted to it.
#[derive(ToSchema)]
#[schema(as = Verification, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes Verification of the core, which knows no OpenAPI")]
enum VerificationShown {
    /// Not at all.
    None,
    /// By the handshake of CloudEvents.
    Handshake,
    /// By visiting a URL that is posted to it.
    Challenge,
}

/// Whether a workspace is there to stay, or a job is deleting it.
#[derive(ToSchema)]
#[schema(as = WorkspaceStatus, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes WorkspaceStatus of the core, which knows no OpenAPI")]
enum StatusShown {
    /// It is.
    Active,
    /// A job is deleting it.
    Deleting,
}

/// As [`WorkspaceName`] has it: no control characters, and not white space alone.
fn name_for_people() -> Object {
    let no_control = r"[^\u0000-\u001f\u007f-\u009f]*";
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("Its name for people."))
        .min_length(Some(1))
        .max_length(Some(WorkspaceName::CHARS_MAX))
        .pattern(Some(format!(r"^{no_control}[^\s\u0000-\u001f\u007f-\u009f]{no_control}$")))
        .build()
}

impl NewWorkspace {
    /// Checks every field. `made` is its id if none was chosen.
    pub(super) fn check(self, made: WorkspaceId, now: UnixMillis) -> Result<Workspace, Invalid> {
        let mut findings = Findings::default();
        let id = match self.id {
            None => Some(made),
            Some(text) => findings.take(text.parse().map_err(|_| {
                let fit = "must be 1 to 63 of a to z, digits, `-` and `_`, and begin with a letter or digit";
                Invalid::field("/id", fit)
            })),
        };
        let input = WorkspaceInput { name: self.name, settings: self.settings };
        let checked = findings.take(input.check(self.kind));
        findings.into_result(())?;
        let (Some(id), Some((name, settings))) = (id, checked) else {
            return Err(Invalid::field("", "must be a workspace"));
        };
        let (created_at, updated_at) = (now, now);
        let status = WorkspaceStatus::Active;
        Ok(Workspace { id, name, kind: self.kind, settings, status, created_at, updated_at, revision: 1 })
    }
}

impl WorkspaceInput {
    /// As it would have to be written to say what a workspace says already.
    pub(super) fn of(workspace: &Workspace) -> Self {
        let Settings {
            https_required,
            developer_mode,
            audience,
            verification,
            default_rate_per_minute,
            show_responses,
        } = workspace.settings;
        let settings = SettingsInput {
            https_required: Some(https_required),
            developer_mode: Some(developer_mode),
            audience: Some(audience),
            verification: Some(verification),
            default_rate_per_minute: default_rate_per_minute.map(u32::from),
            show_responses: Some(show_responses),
        };
        Self { name: workspace.name.to_string(), settings: Some(settings) }
    }

    /// Checks every field.
    pub(super) fn check(self, kind: WorkspaceKind) -> Result<(WorkspaceName, Settings), Invalid> {
        let mut findings = Findings::default();
        let name = WorkspaceName::try_from(self.name);
        let name = findings.take(name.map_err(|error| Invalid::field("/name", error.to_string())));
        let settings = findings.take(self.settings.unwrap_or_default().check(kind));
        findings.into_result(())?;
        name.zip(settings).ok_or_else(|| Invalid::field("", "must be a workspace"))
    }
}

impl SettingsInput {
    fn check(self, kind: WorkspaceKind) -> Result<Settings, Invalid> {
        let default = Settings::default_of(kind);
        let rate = self.default_rate_per_minute.map(Rate::try_from).transpose();
        let rate =
            rate.map_err(|error| Invalid::field("/settings/defaultRatePerMinute", error.to_string()))?;
        Ok(Settings {
            https_required: self.https_required.unwrap_or(default.https_required),
            developer_mode: self.developer_mode.unwrap_or(default.developer_mode),
            audience: self.audience.unwrap_or(default.audience),
            verification: self.verification.unwrap_or(default.verification),
            default_rate_per_minute: rate.or(default.default_rate_per_minute),
            show_responses: self.show_responses.unwrap_or(default.show_responses),
        })
    }
}

/// Refuses settings that are looser than before, unless an administrator wants them and the deployment allows them.
pub(super) fn admit(
    new: &Settings,
    old: &Settings,
    caller: &Caller,
    deployment: &EndpointRules,
) -> Result<(), Problem> {
    let mut findings = Findings::default();
    let not_allowed = "is not allowed in this deployment";
    if old.https_required && !new.https_required {
        findings.add("/settings/httpsRequired", not_allowed);
    }
    if !old.developer_mode && new.developer_mode {
        findings.add("/settings/developerMode", not_allowed);
    }
    match findings.into_result(()) {
        Ok(()) => Ok(()),
        Err(_) if !caller.admin => Err(Problem::Forbidden),
        Err(_) if deployment.allow_insecure => Ok(()),
        Err(refused) => Err(refused.into()),
    }
}

impl From<Workspace> for Shown {
    fn from(workspace: Workspace) -> Self {
        let Workspace { id, name, kind, settings, status, created_at, updated_at, .. } = workspace;
        Self { id, name, kind, settings, status, created_at, updated_at }
    }
}

#[cfg(test)]
mod tests {
    use carillon_http::body::read_patched;
    use serde_json::{Value, json};

    use super::*;
    use crate::conditional::merge;

    fn read(new: &Value) -> Result<Workspace, Problem> {
        let new: NewWorkspace = read_patched(new)?;
        Ok(new.check("ws_made".parse().unwrap(), UnixMillis(1))?)
    }

    fn wrong(new: &Value) -> Vec<String> {
        match read(new) {
            Err(Problem::Invalid(Invalid(errors))) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        let workspace = read(&json!({"name": "Acme", "kind": "consent"})).unwrap();
        assert_eq!(workspace.id.as_str(), "ws_made");
        assert_eq!(workspace.settings, Settings::default_of(WorkspaceKind::Consent));
        let settings = json!({"audience": "open", "httpsRequired": null, "defaultRatePerMinute": 60});
        let workspace =
            read(&json!({"id": "a", "name": "Acme", "kind": "consent", "settings": settings})).unwrap();
        assert_eq!(workspace.settings.audience, AudienceRule::Open);
        assert!(workspace.settings.https_required && workspace.settings.show_responses);
        assert_eq!(workspace.settings.default_rate_per_minute.map(u32::from), Some(60));
    }

    #[test]
    fn all_wrong_fields_are_named() {
        let settings = json!({"defaultRatePerMinute": 0});
        assert_eq!(
            wrong(&json!({"id": "A", "name": " ", "kind": "custom", "settings": settings})),
            ["/id", "/name", "/settings/defaultRatePerMinute"]
        );
        assert_eq!(wrong(&json!({"name": "a", "kind": "odd"})), ["/kind"]);
        assert_eq!(wrong(&json!({"name": "a", "kind": "custom", "sort": 1})), ["/sort"]);
        assert_eq!(
            wrong(&json!({"name": "a", "kind": "custom", "settings": {"https": 1}})),
            ["/settings/https"]
        );
        assert_eq!(wrong(&json!({"kind": "custom"})), ["/name"]);
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let old = read(&json!({"name": "Acme", "kind": "custom", "settings": {"defaultRatePerMinute": 5}}))
            .unwrap();
        let patched = |patch: Value| {
            let Value::Object(patch) = patch else { panic!("{patch}") };
            let whole = serde_json::to_value(WorkspaceInput::of(&old)).unwrap();
            read_patched::<WorkspaceInput>(&merge(whole, patch))?.check(old.kind).map_err(Problem::from)
        };
        assert_eq!(patched(json!({})).unwrap(), (old.name.clone(), old.settings));
        let (name, settings) =
            patched(json!({"name": "B", "settings": {"verification": "challenge"}})).unwrap();
        assert_eq!((name.to_string().as_str(), settings.verification), ("B", Verification::Challenge));
        assert_eq!(settings.default_rate_per_minute, old.settings.default_rate_per_minute);
        let (_, settings) = patched(json!({"settings": {"defaultRatePerMinute": null}})).unwrap();
        assert_eq!(settings.default_rate_per_minute, None);
        assert_eq!(patched(json!({"settings": null})).unwrap().1, Settings::default_of(old.kind));
        assert!(patched(json!({"kind": "consent"})).is_err());
        assert!(patched(json!({"name": null})).is_err());
    }

    #[test]
    fn looser_settings_need_an_administrator_and_a_deployment_that_allows_them() {
        let caller = |admin| Caller { client: "c".parse().unwrap(), admin, role: None };
        let rules = |allow_insecure| EndpointRules { allow_insecure, ..EndpointRules::default() };
        let tight = Settings::default_of(WorkspaceKind::Custom);
        let loose = Settings { https_required: false, developer_mode: true, ..tight };
        let admitted =
            |new: &Settings, old: &Settings, admin, allowed| admit(new, old, &caller(admin), &rules(allowed));
        assert_eq!(admitted(&loose, &tight, true, true), Ok(()));
        assert_eq!(admitted(&loose, &tight, false, true), Err(Problem::Forbidden));
        let Err(Problem::Invalid(refused)) = admitted(&loose, &tight, true, false) else { panic!() };
        assert_eq!(refused.0.len(), 2);
        // What is so already can stay so.
        assert_eq!(admitted(&loose, &loose, false, false), Ok(()));
        assert_eq!(admitted(&tight, &loose, false, false), Ok(()));
    }
}
