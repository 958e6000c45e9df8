//! A raw image that was copied into the pool becomes a volume by the operator's command, and lives on like any other.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::certificates;
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "adopted_image",
    deadline: Duration::from_secs(300),
    run: adopted_image,
}];

const SIZE: i64 = 32 << 20;
const LARGER: i64 = 64 << 20;
const WORDS: &str = "from before the SAN knew it";

fn adopted_image(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let operator = lab.work_folder().join("operator");
    certificates::ensure_of_caller(lab, &stack.san_state(), "operator", &operator)?;
    let image = make_image(lab)?;
    let adopt = |object: &str| {
        let (address, tls) = (Stack::san_address(), operator.display().to_string());
        let command = [
            SANPATH,
            "san",
            "adopt",
            "legacy",
            "--partition",
            "cluster-a",
        ];
        let options = ["--object", object, "--address", &address, "--tls", &tls];
        lab.run(&[&command[..], &options].concat())
    };
    {
        let _open = fs::File::open(lab.pool_folder().join(&image))?;
        let refused = adopt(&image)?;
        lab.story(refused.stderr.trim());
        ensure!(refused.code != Some(0) && refused.stderr.contains("open in some program"));
    }
    let first = adopt(&image)?;
    ensure!(first.code == Some(0), "{first:?}");
    ensure!(
        adopt(&image)?.stdout == first.stdout,
        "other words when repeated"
    );
    ensure!(!lab.pool_folder().join(&image).exists());

    let mut volume = written_down(lab, &first.stdout)?;
    ensure!(
        orchestrator.list()?.contains(&volume.id),
        "it is not listed"
    );
    orchestrator.bring_up(&mut volume)?;
    let blank = volume.publish_context.get("blank").map(String::as_str);
    ensure!(blank == Some("false"), "the SAN calls it blank: {blank:?}");
    ensure!(fs::read_to_string(volume.target.join("kept"))? == WORDS);
    fs::write(volume.target.join("new"), "by a pod")?;
    grow(&mut orchestrator, &mut volume)?;
    ensure!(fs::read_to_string(volume.target.join("kept"))? == WORDS);
    let snapshot = orchestrator.cut("of-the-adopted", &volume)?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    orchestrator.bring_down(&volume)?;
    let left = fs::read_dir(lab.pool_folder().join("volumes"))?.count();
    ensure!(left == 0, "{left} files are left");
    stack.stop(lab)
}

/// An ext4 with a file in it, in the pool; its name there.
fn make_image(lab: &Lab) -> Result<String> {
    let content = lab.work_folder().join("content");
    fs::create_dir_all(&content)?;
    fs::write(content.join("kept"), WORDS)?;
    let image = lab.pool_folder().join("images/legacy.img");
    fs::create_dir_all(image.parent().context("it has a folder")?)?;
    fs::File::create(&image)?.set_len(SIZE.cast_unsigned())?;
    let (content, image) = (content.display().to_string(), image.display().to_string());
    lab.execute(&["mkfs.ext4", "-q", "-d", &content, &image])?;
    Ok("images/legacy.img".to_owned())
}

/// What stands in the PersistentVolume, as the orchestrator takes it.
fn written_down(lab: &Lab, manifest: &str) -> Result<Volume> {
    let value = |key: &str| {
        let line = manifest
            .lines()
            .find_map(|line| line.trim().strip_prefix(key));
        let text = line.with_context(|| format!("no {key} in {manifest}"))?;
        Ok::<_, anyhow::Error>(text.trim().trim_matches('"').to_owned())
    };
    if value("fsType:")? != "ext4" || value("volumeMode:")? != "Filesystem" {
        bail!("{manifest}");
    }
    let folder = lab.work_folder().join("kubelet/legacy");
    Ok(Volume {
        id: value("volumeHandle:")?,
        size: value("storage:")?.parse()?,
        access: Access::Ext4,
        volume_context: [("partition".to_owned(), value("\"partition\":")?)].into(),
        publish_context: HashMap::new(),
        secrets: HashMap::new(),
        staging: folder.join("staging"),
        target: folder.join("target"),
    })
}

fn grow(orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    let room = |volume: &Volume| nix::sys::statvfs::statvfs(&volume.target).map(|it| it.blocks());
    let before = room(volume)?;
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(volume, LARGER)
    })?;
    patiently("NodeExpandVolume", || orchestrator.expand_on_node(volume))?;
    ensure!(room(volume)? > before, "the file system did not grow");
    Ok(())
}
