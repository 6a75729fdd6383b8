/** The form and the table. */

import { ApiError, handIn, listParcels, type NewParcel, type Parcel } from "./api";
import { byId, make, setText } from "./dom";
import { columns, fields, type Column, type Field } from "./fields";

const REFRESH_MS = 5000;

export function startDesk(): void {
  byId("fields").replaceChildren(...fields.map(formField));
  byId("columns").replaceChildren(...columns.map(heading));
  const form = byId("hand-in") as HTMLFormElement;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void submit(form);
  });
  void refresh();
  setInterval(() => {
    if (!document.hidden) void refresh();
  }, REFRESH_MS);
}

async function submit(form: HTMLFormElement): Promise<void> {
  const button = form.querySelector("button")!;
  button.disabled = true;
  try {
    const parcel = await handIn(values(form));
    form.reset();
    notify(`Parcel ${parcel["id"]} is handed in.`);
    await refresh();
  } catch (error) {
    report(error);
  } finally {
    button.disabled = false;
    form.querySelector<HTMLElement>("input, select")?.focus();
  }
}

async function refresh(): Promise<void> {
  try {
    const parcels = await listParcels();
    byId("rows").replaceChildren(...(parcels.length ? parcels.map(row) : [emptyRow()]));
    if (byId("notice").classList.contains("error")) notify("");
  } catch (error) {
    report(error);
  }
}

function values(form: HTMLFormElement): NewParcel {
  const entries = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== ""));
}

function formField(field: Field): HTMLElement {
  const label = make("label", field.label);
  const control = field.choices ? select(field.choices) : make("input");
  control.name = field.name;
  control.required = field.required ?? false;
  control.autocomplete = "off";
  if (control instanceof HTMLInputElement && field.maxLength) control.maxLength = field.maxLength;
  label.append(control);
  return label;
}

function select(choices: readonly string[]): HTMLSelectElement {
  const element = make("select");
  element.append(...["", ...choices].map((choice) => new Option(choice || "none", choice)));
  return element;
}

function heading(column: Column): HTMLElement {
  const cell = make("th", column.label);
  cell.scope = "col";
  return cell;
}

function row(parcel: Parcel): HTMLElement {
  const element = make("tr");
  element.append(...columns.map((column) => make("td", display(column, parcel[column.name]))));
  return element;
}

function emptyRow(): HTMLElement {
  const element = make("tr");
  const cell = make("td", "Nothing has been handed in yet.");
  cell.colSpan = columns.length;
  element.append(cell);
  return element;
}

function display(column: Column, value: string | number | null | undefined): string {
  if (value === null || value === undefined) return "";
  return column.name === "created_at" ? new Date(value).toLocaleString() : String(value);
}

function report(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  notify(error.message, true);
}

function notify(text: string, isError = false): void {
  const notice = byId("notice");
  notice.classList.toggle("error", isError);
  setText(notice, text);
}
