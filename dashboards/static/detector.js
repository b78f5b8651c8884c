// The detector page, drawn from its JSON twin: where merging may start, and what each block can spare.
"use strict";

followTwin(byId("detector").dataset.twin, ({ merge_start: start, sensitivity }) => Promise.all([drawMergeStart(start), drawSensitivity(sensitivity)]));
