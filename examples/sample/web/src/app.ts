/** Starts the parts of the page. */

import { startDesk } from "./desk";
import { startEcho } from "./echo";
import { startReleases } from "./releases";
import { startTheme } from "./theme";

startTheme();
startReleases();
startDesk();
startEcho();
