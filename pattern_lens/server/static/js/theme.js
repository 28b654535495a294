/** Dark or light: what the address says, else what was chosen last in this browser, else what the browser says. */
import { currentTheme, setTheme } from "pattern-lens/state.js";

const KEY = "pattern-lens-theme";

export function rememberedTheme() {
  if (currentTheme()) return currentTheme();
  const stored = storage()?.getItem(KEY);
  return stored === "dark" || stored === "light" ? stored : null;
}

export function isDark() {
  return (currentTheme() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

export function toggleTheme() {
  setTheme(isDark() ? "light" : "dark");
  storage()?.setItem(KEY, currentTheme());
}

/** Pages from a file or with cookies off may have no storage at all. */
function storage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}
