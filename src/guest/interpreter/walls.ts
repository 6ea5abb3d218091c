import { closeRealm, freezeRealm, type ImportSeal, revokePermissions } from "./realm.ts";

/** From now on this thread, and any code of a package's that runs in it, has what user code has. */
export function raiseWalls(imports: ImportSeal): void {
  revokePermissions();
  closeRealm();
  freezeRealm();
  imports.close();
}
