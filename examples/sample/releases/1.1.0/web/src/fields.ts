/** What this release asks for and shows about a parcel. */

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly maxLength?: number;
  readonly required?: boolean;
  readonly choices?: readonly string[];
}

export interface Column {
  readonly name: string;
  readonly label: string;
}

export const fields: readonly Field[] = [
  { name: "recipient", label: "Recipient", maxLength: 200, required: true },
  { name: "note", label: "Note", maxLength: 2000 },
  { name: "priority", label: "Priority", choices: ["express", "standard"] },
];

export const columns: readonly Column[] = [
  { name: "id", label: "No." },
  { name: "recipient", label: "Recipient" },
  { name: "note", label: "Note" },
  { name: "priority", label: "Priority" },
  { name: "state", label: "State" },
  { name: "created_at", label: "Handed in" },
];
