import { type Markup, markup } from './markup.ts';

/** A drawing, what it is called, and what to read from it. */
export interface Figure {
  readonly title: string;
  readonly drawing: Markup;
  /** Of drawings that do not name their marks: tone and name. */
  readonly legend?: readonly { readonly tone: number; readonly name: string }[];
  readonly text: string;
}

export interface Section {
  readonly id: string;
  readonly title: string;
  /** Above the figures; '' for none. */
  readonly lead: string;
  readonly figures: readonly Figure[];
  /** Below them; '' for none. */
  readonly end?: Markup | string;
}

/** A section of the document. */
export function drawSection({ id, title, lead, figures, end = '' }: Section): Markup {
  return markup`<section aria-labelledby="${id}">
<h2 id="${id}">${title}</h2>
${lead === '' ? null : markup`<p class="lead">${lead}</p>`}
${figures.length === 0 ? null : markup`<div class="figures">${figures.map(drawFigure)}</div>`}
${end === '' ? null : typeof end === 'string' ? markup`<p>${end}</p>` : end}
</section>
`;
}

function drawFigure({ title, drawing, legend = [], text }: Figure): Markup {
  const entries = legend.map(
    ({ tone, name }) => markup`<li><span class="key tone${tone}"></span>${name}</li>`,
  );
  return markup`<figure>
<h3>${title}</h3>
${drawing}
${entries.length === 0 ? null : markup`<ul class="legend">${entries}</ul>`}
<figcaption>${text}</figcaption>
</figure>
`;
}
