//! A proxy whose sockets another process has taken over.

use std::time::Duration;

use weir_config::model::Config;
