/** Imported for its effect, before what runs hot while it is loaded. */
import { frugalUntilWork } from "./frugal.ts";

frugalUntilWork();
