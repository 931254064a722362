//! What a sweep has of each device class: a sidecar, and the engine that is loaded in it.

use crate::machine::device::DeviceClass;
use crate::measurement::session::{Engine, SessionError, Sidecar, SidecarOptions};
use crate::measurement::telemetry::Telemetry;

/// A device class, its sidecar, and the engine that stays loaded there while another class is measured.
pub struct Station {
    /// What its sidecar is started with, and started again.
    pub(super) options: SidecarOptions,
    pub(super) sidecar: Sidecar,
    /// Loaded in an earlier epoch, for a later one.
    pub(super) kept: Option<Engine>,
    /// The sources of the loaded engine's telemetry, while no run is sampled.
    pub(super) telemetry: Option<Telemetry>,
}

impl Station {
    /// Has a sidecar for these options, and no engine yet.
    ///
    /// # Errors
    /// What [`Sidecar::start`] says.
    pub async fn open(options: SidecarOptions) -> Result<Station, SessionError> {
        let sidecar = Sidecar::start(&options).await?;
        Ok(Station { options, sidecar, kept: None, telemetry: None })
    }

    /// The class of its engines.
    pub fn device(&self) -> DeviceClass {
        self.options.device
    }

    /// What its sidecar was started with.
    pub fn options(&self) -> &SidecarOptions {
        &self.options
    }

    /// Its sidecar.
    pub fn sidecar(&mut self) -> &mut Sidecar {
        &mut self.sidecar
    }

    /// Ends its engine and its sidecar; one that stays after this command is emptied and left to the next. `at_once`: somebody
    /// waits for it.
    pub(super) async fn close(mut self, at_once: bool) {
        if let Some(engine) = self.kept.take() {
            self.sidecar.put_back(engine).await;
        }
        match at_once {
            true => self.sidecar.shutdown_at_once().await,
            false => self.sidecar.shutdown().await,
        }
    }
}
