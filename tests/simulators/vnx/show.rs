//! What is printed of what there is.

use std::fmt::Write as _;

use super::luns::{GONE, go_on};
use super::state::{Lun, Record, State};
use super::words::{Asked, invalid};
use super::{Done, no};

const BLOCK: u64 = 512;
const GIB: u64 = 1 << 30;

pub fn look(state: &mut State, asked: &Asked) -> Done {
    match asked.command() {
        ("getagent", _) => Ok(agent(state, asked)),
        ("domain", "-list") => Ok(domain()),
        ("ndu", "-list") => Ok(software()),
        ("lun", "-list") => luns(state, asked),
        ("snap", "-list") => snaps(state, asked),
        ("migrate", "-list") => migrations(state, asked),
        ("storagegroup", "-list") => groups(state, asked),
        ("storagepool", "-list") => pools(state, asked),
        ("storagepool", "-feature") => Ok(feature()),
        ("connection", "-getport") => Ok(ports(state)),
        _ => invalid(),
    }
}

fn agent(state: &State, asked: &Asked) -> String {
    let other = state.other_serial.as_ref();
    let serial = other
        .filter(|_| asked.processor == Some(1))
        .unwrap_or(&state.serial);
    format!(
        "\nAgent Rev:           7.33.8 (2.97)\nName:                K10\nDesc:                \nNode:                A-{0}\nPhysical Node:       K10\nSignature:           4022290\nPeer Signature:      4022287\nRevision:            05.33.008.3.297\nSCSI Id:             0\nModel:               VNX5800\nModel Type:          Rackmount\nProm Rev:            33.40.00\nSP Memory:           32768\nSerial No:           {0}\nSP Identifier:       A\nCabinet:             DPE9\n",
        serial
    )
}

fn domain() -> String {
    let [a, b] = super::PROCESSORS;
    format!(
        "Node:                 APM00153042305\nIP Address:           {a} (Master)\nName:                 SPA\nPort:                 80\nSecure Port:          443\nIP Address:           {b}\nName:                 SPB\nPort:                 80\nSecure Port:          443\n"
    )
}

fn software() -> String {
    let one = |name: &str| {
        format!(
            "Name of the software package:        {name}\nRevision of the software package:    -\nCommit Required:                     NO\nRevert Possible:                     NO\nActive State:                        YES\nIs installation completed:           YES\nIs this System Software:             NO\n\n"
        )
    };
    ["-ThinProvisioning", "-VNXSnapshots"].map(one).concat()
}

fn sizes(out: &mut String, name: &str, bytes: u64) {
    let blocks = bytes / BLOCK;
    let gib = bytes as f64 / GIB as f64;
    let _ = write!(out, "{name} (Blocks):  {blocks}\n{name} (GBs):  {gib:.3}\n");
}

fn luns(state: &mut State, asked: &Asked) -> Done {
    let number = asked.find("-l").map(|it| it.parse().ok());
    let name = asked.find("-name");
    let only = asked.find("-showOnly");
    let is_meant = |(it, lun): &(&u32, &Lun)| {
        number.is_none_or(|number| number == Some(**it))
            && name.is_none_or(|name| lun.name == name)
            && match only {
                Some("Snap") => lun.primary.is_some(),
                Some("Thin") => lun.is_thin,
                Some("NonThin") => !lun.is_thin,
                _ => true,
            }
    };
    let found = state.luns.iter().filter(is_meant);
    let found: Vec<u32> = found.map(|(number, _)| *number).collect();
    if found.is_empty() {
        return no(GONE);
    }
    let shown: Vec<String> = found.iter().map(|it| lun(state, *it)).collect();
    for number in found {
        let lun = state.luns.get_mut(&number).unwrap();
        lun.preparing = lun.preparing.saturating_sub(1);
    }
    Ok(shown.join("\n"))
}

fn lun(state: &State, number: u32) -> String {
    let lun = &state.luns[&number];
    let mut out = format!(
        "LOGICAL UNIT NUMBER {number}\nName:  {}\nUID:  {}\nCurrent Owner:  SP A\nDefault Owner:  SP A\nAllocation Owner:  SP A\n",
        lun.name, lun.uid
    );
    sizes(&mut out, "User Capacity", lun.size);
    sizes(&mut out, "Consumed Capacity", 3 * GIB);
    sizes(&mut out, "LUN Allocation", lun.written * BLOCK);
    sizes(&mut out, "Snapshot Allocation", 0);
    sizes(&mut out, "Metadata Allocation", 3 * GIB);
    let _ = write!(
        out,
        "Compression Savings (Blocks):  N/A\nCompression Savings (GBs):  N/A\nPool Name:  {}\nRaid Type:  r_5\nDisk Type:  SAS\nOffset:  0\nAuto-Assign Enabled:  DISABLED\nAuto-Trespass Enabled:  DISABLED\nCurrent State:  {}\nStatus:  OK(0x0)\nIs Faulted:  {}\nIs Transitioning:  {}\n",
        lun.pool,
        lun.state,
        lun.is_faulted,
        lun.preparing > 0
    );
    let migrates = state.migrations.iter().any(|it| it.source == number);
    let operation = match (lun.preparing > 0, migrates) {
        (true, _) => "Preparing",
        (_, true) => "Migrating",
        _ => "None",
    };
    let writes = u64::from(lun.written > 0);
    let primary = lun.primary.and_then(|it| state.luns.get(&it));
    let mounts = state
        .luns
        .iter()
        .filter(|(_, it)| it.primary == Some(number));
    let mounts: Vec<String> = mounts.map(|(number, _)| number.to_string()).collect();
    let or_nothing =
        |text: Option<&str>| text.filter(|it| !it.is_empty()).unwrap_or("N/A").to_owned();
    let _ = write!(
        out,
        "Current Operation:  {operation}\nCurrent Operation State:  N/A\nCurrent Operation Status:  N/A\nCurrent Operation Percent Completed:  0\nStatistics Logging Current Time:  06/20/16 17:37:16\nRead Requests:  0\nWrite Requests:  {writes}\nBlocks Read:  0\nBlocks Written:  {}\nIs Pool LUN:  Yes\nIs Thin LUN:  {}\nIs Private:  No\nIs Compressed:  No\nDeduplication State:  Off\nDeduplication Status:  OK(0x0)\nFeatures:  N/A\nTiering Policy:  Auto Tier\nInitial Tier:  Highest Available\nTier Distribution:\nPerformance:  100.00%\nAllow Snapshot Auto-Delete:  Yes\nSnapshot Mount Points:  {}\nConsistency Group:  N/A\nPrimary LUN:  {}\nAttached Snapshot:  {}\nAllow Inband Snap Attach:  No\nAllocation Policy:  Automatic\n",
        lun.written,
        if lun.is_thin { "Yes" } else { "No" },
        or_nothing(Some(&mounts.join(","))),
        or_nothing(primary.map(|it| it.name.as_str())),
        or_nothing(lun.attached.as_deref()),
    );
    out
}

fn snaps(state: &State, asked: &Asked) -> Done {
    let (name, lun) = (asked.find("-id"), asked.find("-res"));
    let mut out = String::new();
    for (known, snap) in &state.snaps {
        let is_meant = name.is_none_or(|name| name == known)
            && lun.is_none_or(|lun| lun == snap.lun.to_string());
        if !is_meant {
            continue;
        }
        let attached = state
            .luns
            .iter()
            .find(|(_, lun)| lun.attached.as_ref() == Some(known));
        let attached = attached.map(|(number, _)| number.to_string());
        let yes = |is: bool| if is { "Yes" } else { "No" };
        let clock = snap.cut_at;
        let _ = write!(
            out,
            "\nName:  {known}\nDescription:  {}\nCreation time:  11/26/26 {:02}:{:02}:{:02}\nLast modify time:  Never\nLast modified by:  N/A\nSource LUN(s):  {lun}\nSource CG:  N/A\nPrimary LUN(s):  {lun}\nState:  Ready\nStatus:  OK(0x0)\nAllow Read/Write:  {}\nModified:  No\nAttached LUN(s):  {}\nAllow auto delete:  {}\nExpiration date:  Never\n",
            snap.description,
            clock / 3600 % 24,
            clock / 60 % 60,
            clock % 60,
            yes(snap.is_writable),
            attached.unwrap_or_default(),
            yes(snap.may_go),
            lun = snap.lun,
        );
    }
    if out.is_empty() {
        return no("Could not retrieve the specified (Snapshot). The (Snapshot) may not exist");
    }
    Ok(out)
}

fn migrations(state: &mut State, asked: &Asked) -> Done {
    let wanted: Option<u32> = asked.find("-source").and_then(|it| it.parse().ok());
    let sources: Vec<u32> = state.migrations.iter().map(|it| it.source).collect();
    for source in sources {
        if wanted.is_none_or(|wanted| wanted == source) {
            go_on(state, source);
        }
    }
    let name = |number: u32| state.luns.get(&number).map_or("", |it| it.name.as_str());
    let meant = state.migrations.iter();
    let meant = meant.filter(|it| wanted.is_none_or(|wanted| wanted == it.source));
    let shown = meant.map(|it| {
        format!(
            "Source LU Name:  {}\nSource LU ID:  {}\nDest LU Name:  {}\nDest LU ID:  {}\nMigration Rate:  high\nCurrent State:  {}\nPercent Complete:  50\nTime Remaining:  0 second(s)\n",
            name(it.source),
            it.source,
            name(it.dest),
            it.dest,
            it.state
        )
    });
    let shown: Vec<String> = shown.collect();
    match (shown.is_empty(), wanted) {
        (true, Some(_)) => no(
            "Error: migrate -list command failed.\nThe specified source LUN is not currently migrating.",
        ),
        (true, None) => Ok("No current migrations exist.\n".to_owned()),
        _ => Ok(shown.join("\n")),
    }
}

/// An initiator is printed in a column of so many letters; a longer one takes the blanks of the next.
fn path(record: &Record, has_attributes: bool) -> String {
    let mut out = format!(
        "  {:<48}  SP {}         {}\nHost name:             {}\n",
        record.initiator, record.sp, record.port, record.host
    );
    if record.initiator.len() > 50 {
        out = format!(
            "  {}SP {}{}\nHost name:             {}\n",
            record.initiator, record.sp, record.port, record.host
        );
    }
    if has_attributes {
        let _ = write!(
            out,
            "SPPort:                {}-{}v{}\nInitiator IP:          N/A\nTPGT:                  1\nISID:                  N/A\n",
            record.sp, record.port, record.vport
        );
    }
    out + "\n"
}

fn groups(state: &State, asked: &Asked) -> Done {
    let wanted = asked.find("-gname");
    let of = |group: Option<&str>| {
        let records = state.records.iter();
        let is_in = move |it: &&Record| state.connected.get(&it.host).map(String::as_str) == group;
        records.filter(is_in).collect::<Vec<_>>()
    };
    let has_attributes = asked.has("-iscsiAttributes");
    let paths = |records: Vec<&Record>| {
        if records.is_empty() {
            return String::new();
        }
        let lines: String = records.iter().map(|it| path(it, has_attributes)).collect();
        format!(
            "HBA/SP Pairs:\n\n  HBA UID                                          SP Name     SPPort\n  -------                                          -------     ------\n{lines}"
        )
    };
    let mut shown = Vec::new();
    if asked.has("-messner") && wanted.is_none_or(|it| it == "~management") {
        shown.push(format!(
            "\nStorage Group Name:    ~management\nStorage Group UID:     60:06:01:60:00:00:00:00:00:00:00:00:00:00:00:02\n{}Special:               YES\nDefault:               YES\nShareable:             YES\n",
            paths(of(None))
        ));
    }
    for (name, group) in &state.groups {
        if wanted.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let mut luns = String::new();
        if !group.luns.is_empty() {
            luns.push_str(
                "\nHLU/ALU Pairs:\n\n  HLU Number     ALU Number\n  ----------     ----------\n",
            );
        }
        for (hlu, alu) in &group.luns {
            let _ = writeln!(luns, "    {hlu:<15} {alu}");
        }
        shown.push(format!(
            "\nStorage Group Name:    {name}\nStorage Group UID:     F6:F1:04:29:91:97:E5:11:85:E1:AE:04:{:02X}:{:02X}:DC:17\n{}{luns}Shareable:             YES\n",
            group.number >> 8 & 255,
            group.number & 255,
            paths(of(Some(name)))
        ));
    }
    if shown.is_empty() {
        return no(
            "Error: storagegroup command failed\nError returned from Agent\nThe group name or UID does not match any storage groups for this array",
        );
    }
    Ok(shown.concat())
}

fn pools(state: &State, asked: &Asked) -> Done {
    let mut shown = Vec::new();
    for (id, (name, total)) in state.pools.iter().enumerate() {
        let is_meant = asked.find("-name").is_none_or(|it| it == *name)
            && asked.find("-id").is_none_or(|it| it == id.to_string());
        if !is_meant {
            continue;
        }
        let used = state.luns.values().filter(|lun| lun.pool == *name).count() as u64 * 3 * GIB;
        let mut out = format!(
            "Pool Name:  {name}\nPool ID:  {id}\nRaid Type:  r_5\nPercent Full Threshold:  70\nDescription:  \nDisk Type:  SAS\nState:  Ready\nStatus:  OK(0x0)\nCurrent Operation:  None\nCurrent Operation State:  N/A\nCurrent Operation Status:  N/A\nCurrent Operation Percent Completed:  0\n"
        );
        sizes(&mut out, "Raw Capacity", *total);
        sizes(&mut out, "User Capacity", *total);
        sizes(&mut out, "Consumed Capacity", used);
        sizes(&mut out, "Available Capacity", total - used);
        let _ = write!(
            out,
            "Percent Full:  3.026\nDisks:\nBus 1 Enclosure 0 Disk 20 (SAS)\nLUNs:  N/A\n"
        );
        shown.push(out);
    }
    if shown.is_empty() {
        return no(
            "Could not retrieve the specified (Storagepool). The (Storagepool) may not exist",
        );
    }
    Ok(shown.join("\n"))
}

fn feature() -> String {
    "Is Virtual Provisioning Supported:  true\nMax. Pools:  40\nMax. Disks Per Pool:  746\nMax. Disks for all Pools:  746\nMax. Disks Per Operation:  120\nMax. Pool LUNs:  2100\nMin. Pool LUN Size(Blocks):  1\nMax. Pool LUN Size(Blocks):  549755813888\nMax. Pool LUN Size(GBs):  262144.000\nTotal Number of Pools:  2\nAvailable Disks:\nBus 0 Enclosure 0 Disk B8\nBackground Operation State:  None\nBackground Rate:  Medium\n".to_owned()
}

fn ports(state: &State) -> String {
    let mut shown = Vec::new();
    for port in &state.ports {
        let iqn = super::Navi::target(&state.serial, port);
        let letter = port.sp.to_ascii_lowercase();
        let mut out = format!(
            "SP:  {}\nPort ID:  {}\nPort WWN:  {iqn}\niSCSI Alias:  0.{letter}{}\nEnode MAC Address:  00-60-16-36-82-8C\nPort Speed:  10000 Mb\nAuto-Negotiate:  Yes\nAvailable Speeds:  10000 Mb\n-               :  Auto\nCurrent MTU:  1500\nFlow Control:  Auto\nHost Window:  256K\nReplication Window:  256K\nAvailable Window Sizes:  64K,128K,256K,512K,1MB\n",
            port.sp, port.port, port.port
        );
        for (vport, address) in port.addresses.iter().enumerate() {
            let _ = write!(
                out,
                "\nVirtual Port ID:  {vport}\nVLAN ID:  Disabled\nIP Address:  {address}\nSubnet Mask:  255.255.255.0\nGateway Address:  0.0.0.0\nInitiator Authentication:  false\n"
            );
        }
        shown.push(out);
    }
    shown.join("\n")
}
