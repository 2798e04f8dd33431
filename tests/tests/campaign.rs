//! A small campaign from its file to its report, and every campaign file that ships.

use std::fs;

use qemu_runner::campaign::directory::{self, Beginning, Journal, Manifest};
use qemu_runner::campaign::file::Campaign;
use qemu_runner::campaign::jobs::Job;
use qemu_runner::campaign::outcome::Containment;
use qemu_runner::campaign::report;
use qemu_runner::campaign::run::Machines;
use qemu_runner::campaign::summary::Summary;
use qemu_runner::commands::Setup;
use qemu_runner::error::Ending;
use qemu_runner::images::workspace_root;
use qemu_runner::launch::Mode;
use qemu_runner::output::Progress;
use tests::harness::{launch, take_turn};

const SMALL: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "small"
purpose = "A campaign is carried out and reported on"
[[fault]]
id = "halt"
model = "cpu.halt"
target = { cell = [1, 2, 3] }
when = { work_ms = 300 }
"#;

#[test]
fn a_campaign_is_run_and_reported() {
    let _turn = take_turn();
    let campaign = Campaign::parse(SMALL).expect("the file is good");
    let launch = launch(campaign.machine.get_ref().machine(), Mode::Realtime);
    let on = (Setup::of(&launch), &launch.images);
    let manifest = Manifest::new(SMALL, &campaign, 7, 3, on).expect("the images can be read");
    let path = tempfile::tempdir().expect("a directory can be made");
    let mut journal = Journal::open(path.path(), &manifest, Beginning::New).expect("it is empty");
    let job = Job {
        campaign: &campaign,
        seed: 7,
        runs: 3,
        at_once: 1,
        only: None,
        stop_on: None,
    };
    let comparison = campaign.header.comparison();
    let engine = Machines { launch, comparison };
    job.carry_out(&engine, &mut journal, &mut Progress::silent())
        .expect("the runs can be carried out");
    let finished = directory::read(path.path()).expect("the campaign can be read back");
    assert_eq!(finished.records, journal.records);
    let labels: Vec<Containment> = finished
        .records
        .values()
        .map(|record| record.containment)
        .collect();
    let [golden, null, halt] = labels.as_slice() else {
        panic!("not three runs: {labels:?}")
    };
    assert_eq!(
        (*golden, *null),
        (Containment::NotManifested, Containment::NotManifested)
    );
    assert_eq!(*halt, Containment::ContainedReintegrated);
    let summary = Summary::of(&manifest, finished.records.values());
    assert_eq!(summary.ending(), Ending::Held, "{:#?}", summary.violations);
    report::write(path.path(), &manifest, &finished.records, &summary)
        .expect("the report can be written");
}

#[test]
fn every_campaign_file_is_good() {
    let folder = workspace_root().join("tests/campaigns");
    let files = fs::read_dir(folder).expect("the folder can be read");
    let mut count = 0;
    for path in files.flatten().map(|entry| entry.path()) {
        let text = fs::read_to_string(&path).expect("the file can be read");
        let campaign = Campaign::parse(&text);
        let campaign = campaign.unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        assert_eq!(
            path.file_stem().and_then(|stem| stem.to_str()),
            Some(campaign.name())
        );
        count += 1;
    }
    assert!(count >= 3);
}
