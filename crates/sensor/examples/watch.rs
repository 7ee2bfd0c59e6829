//! Loads the sensor and prints what comes out of the kernel for all new cgroups; a tool for
//! people who work on the sensor: `cargo run -p plimsoll-sensor --example watch -- v1:pids | v2`.

use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::{Hierarchy, SensorConfig, Signal};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let which = std::env::args().nth(1).unwrap_or_else(|| "v2".into());
    let hierarchy = match which.strip_prefix("v1:") {
        Some(c) => Hierarchy::V1 {
            controller: c.into(),
            mount: format!("/sys/fs/cgroup/{c}").into(),
        },
        None => Hierarchy::V2 {
            mount: std::env::args()
                .nth(2)
                .unwrap_or_else(|| "/sys/fs/cgroup".into())
                .into(),
        },
    };
    let mut sensor = Sensor::load(&SensorConfig::new(hierarchy))?;
    for h in sensor.hooks() {
        println!("{:40} {:?} {:?}", h.kind, h.mechanism, h.refused);
    }
    let control = sensor.control();
    for i in 0.. {
        sensor.poll(Duration::from_millis(100), &mut |signal| match signal {
            Signal::Event(e) => println!("{} {} {:?}", e.cgroup_id, e.process.comm, e.kind),
            Signal::Loss(l) => println!("{l:?}"),
            Signal::Stream(uses) => println!("{} uses of streams", uses.len()),
        })?;
        if i % 100 == 0 {
            eprintln!("{:?}", control.counters());
        }
    }
    Ok(())
}
